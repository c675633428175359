"""The performance suite: every figure is a ratio or a difference from one run on one machine.

`bars` is the table of what is promised. `subjects` holds what is run and `walls` what each one stands up; `measure`
interleaves them; a module of `rows` gives the figures for some bars; `report` and `plot` write them down. `programs`
are in C, for what must not contain an interpreter. Nothing here is imported by the package.
"""
