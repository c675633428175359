"""The rows: each module measures what some bars are about, and says why where it cannot."""
