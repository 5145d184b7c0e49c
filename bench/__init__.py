"""Measurements of the forwarder from outside; `make bench`."""
