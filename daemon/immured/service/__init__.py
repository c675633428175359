"""The daemon: connections, dispatch, one module per command family, the registry of live sandboxes, start and stop."""
