"""The performance suite: every figure is a ratio from one run on one machine.

`subjects` holds what is measured and says what walls each one stands up; `measure` interleaves them; `report` writes
the table. Nothing here is imported by the package.
"""
