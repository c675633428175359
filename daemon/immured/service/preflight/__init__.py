"""Whether a run under a manifest would be let in, and held by what it asks for: every check, and what to do about it.

A run asks the same, one after the other, and is refused at the first that fails; here all of them answer.
"""
