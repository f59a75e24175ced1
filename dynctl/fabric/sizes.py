"""Sizes in bytes as people write them: `64KiB`, `256M`, `1GiB`. Pure."""

from __future__ import annotations

import re

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SIZE = re.compile(r"(\d{1,12})\s*([KMG]?)(?:i?B)?", re.IGNORECASE | re.ASCII)
SMALLEST_BYTES, LARGEST_BYTES = 4 << 10, 4 << 30


def parse_size(text: str) -> int:
    """Bytes, units binary; ValueError, in words, for what is none, or not between 4 KiB and 4 GiB."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("must be a number of bytes, with K, M or G")
    size = int(match[1]) * _UNITS[match[2].upper()]
    if not SMALLEST_BYTES <= size <= LARGEST_BYTES:
        raise ValueError("must be between 4 KiB and 4 GiB")
    return size
