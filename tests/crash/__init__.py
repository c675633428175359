"""What a crash at the worst moment leaves behind: nothing."""
