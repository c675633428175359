"""What is handed out: a source distribution, the wheel made from it, and what pip makes of that."""
