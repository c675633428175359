"""Who may do what: one strict file, what it decides, and what can be said about it. Sans-I/O, the clock passed in."""
