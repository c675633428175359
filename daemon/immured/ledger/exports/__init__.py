"""Copies of the ledger elsewhere: what goes there, in what form, and how it is compared with what is here."""
