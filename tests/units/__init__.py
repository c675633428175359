"""The units under a real systemd, installed as `make install` does: only on a host that is thrown away afterwards."""
