"""`make demo`: a real daemon on a throw-away state directory, honest work, and everything else that people try."""
