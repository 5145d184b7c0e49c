"""Quantities as people read them."""

from __future__ import annotations


def binary_size(size_bytes: float) -> str:
    """Bytes in powers of 1024, with one digit after the point where there is one: `64 MiB`, `1.5 GiB`."""
    value, units = float(size_bytes), ["B", "KiB", "MiB", "GiB"]
    while abs(value) >= 1023.95 and units:  # what would be rounded to 1024 is one of the next unit
        value /= 1024
        units.pop(0)
    return f"{value:.1f}".removesuffix(".0") + f" {units[0] if units else 'TiB'}"
