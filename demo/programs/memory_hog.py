"""Takes memory, touches it, and never gives any back."""

kept = []
while True:
    kept.append(b"\xff" * (8 << 20))
