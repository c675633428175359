"""Sandboxes that live, attacked from inside: by one exec of another, of its warden and of the keeper."""
