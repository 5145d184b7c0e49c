"""Forwarding strategies, one a file: where an Interest goes of the next hops that its prefix has."""
