"""`run.batch`: many runs under one signature.

arguments   what is asked for, run by run
records     what is said of it: to the ledger before and after, to the client
journal     outcomes into few entries; results to the client once theirs is durable
execution   the runs themselves, so many at a time
"""
