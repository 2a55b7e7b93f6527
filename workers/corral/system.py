"""What only the machine knows: ids, memory."""

from __future__ import annotations

import os
import resource
import secrets
import sys

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32: no letters that look like digits."""


def new_run_id() -> str:
    """A random run id of 12 characters: 60 bits, and a few of them are a unique prefix."""
    return "".join(_ALPHABET[byte & 31] for byte in secrets.token_bytes(12))


def new_nonce() -> str:
    """Random text that marks one append."""
    return secrets.token_hex(6)


def short_id(digest: bytes) -> str:
    """The first 12 bytes of a digest, as an id of 12 characters."""
    return "".join(_ALPHABET[byte & 31] for byte in digest[:12])


def memory() -> int:
    """Bytes of memory that this process holds; where only the most it ever held is known, that."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123  # every second: no Path object
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
