"""What a hostile payload and a nosy caller try: every test here runs against a real daemon."""
