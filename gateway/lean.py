"""Keeps out of memory what a small router's gateway may never need; to be called before anything else is imported."""

from __future__ import annotations

import functools
import importlib
import sys


def import_without_openssl() -> None:
    """Imports asyncio without TLS and hashlib with Python's own SHA-256, which saves 8 MB.

    Nothing here speaks TLS, since packets are signed and not channels. A later `import ssl` works as ever, and who
    hashes more than a packet now and then calls `hash_in_bulk`.
    """
    if "_hashlib" in sys.modules or "ssl" in sys.modules:
        return
    # Both modules take it for a Python that was built without these, and go without them.
    sys.modules["ssl"] = sys.modules["_hashlib"] = None  # type: ignore[assignment]
    try:
        for name in ("hashlib", "hmac", "asyncio"):
            importlib.import_module(name)
    finally:
        del sys.modules["ssl"], sys.modules["_hashlib"]


@functools.cache
def hash_in_bulk() -> None:
    """Lets OpenSSL compute SHA-256 from now on: five times as fast, 3.5 MB larger."""
    import hashlib

    try:
        from _hashlib import openssl_sha256
    except ImportError:  # a Python that was really built without it
        return
    hashlib.sha256 = openssl_sha256
