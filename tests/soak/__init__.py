"""Mixed load for a while, and nothing that grows: `make soak`, or a minute of it in the suite."""
