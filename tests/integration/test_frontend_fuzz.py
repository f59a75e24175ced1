"""A short run of the fuzzer with a fixed seed; `make fuzz` runs it for ten minutes."""

from __future__ import annotations

from fuzz_frontend import fuzz


async def test_a_short_run_finds_nothing() -> None:
    faults, seen, figures = await fuzz(60.0, seed=7, rounds=4)
    assert faults == [], figures
    assert {name for name, _ in seen} == {"get", "sound", "odd-body", "broken-json", "framing", "head", "noise"}
    assert seen["odd-body", "400"] > 10
    assert seen["sound", "200"] > 10
