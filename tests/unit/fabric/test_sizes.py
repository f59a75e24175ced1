"""Sizes as they are typed."""

from __future__ import annotations

import pytest

from dynctl.fabric.sizes import parse_size


@pytest.mark.parametrize(("text", "expected"), [
    ("65536", 65536), ("64K", 65536), ("64KiB", 65536), ("1 MiB", 1 << 20), ("2g", 2 << 30), ("4GB", 4 << 30),
])  # fmt: skip
def test_sizes(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "K", "-1", "1.5M", "4095", "5G", "1T", "64KK", "9" * 40, "６４K"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_size(text)
