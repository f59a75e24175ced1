"""Which pairs are proven."""

from __future__ import annotations

import pytest

from dynctl.plan.values import ALL_PAIRS, PlannedPair, pairs_to_prove


def pairs(prefills: int, decodes: int) -> tuple[PlannedPair, ...]:
    return tuple(
        PlannedPair(from_=f"prefill-{a}", to=f"decode-{b}", path="shm", floor="shm", reason="")
        for a in range(prefills)
        for b in range(decodes)
    )


@pytest.mark.parametrize(("prefills", "decodes"), [(0, 0), (1, 1), (2, 3), (8, 8), (64, 1)])
def test_all_of_them_up_to_a_limit(prefills: int, decodes: int) -> None:
    assert pairs_to_prove(pairs(prefills, decodes)) == pairs(prefills, decodes)


@pytest.mark.parametrize(("prefills", "decodes"), [(9, 8), (65, 1), (1, 65), (40, 30), (13, 26)])
def test_above_it_a_set_that_covers_every_worker(prefills: int, decodes: int) -> None:
    chosen = pairs_to_prove(pairs(prefills, decodes))
    assert len(pairs(prefills, decodes)) > ALL_PAIRS
    assert len(chosen) == max(prefills, decodes)
    assert {pair.from_ for pair in chosen} == {f"prefill-{a}" for a in range(prefills)}
    assert {pair.to for pair in chosen} == {f"decode-{b}" for b in range(decodes)}
