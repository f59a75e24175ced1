"""What the preflight makes of a proof: a line, an error with the right exit code, or nothing."""

from __future__ import annotations

from typing import Any

import pytest

from dynctl.errors import HostError, TransportError
from dynctl.fabric.probe import prove as probe
from dynctl.fabric.probe.ends import Transfer, transfers
from dynctl.fabric.probe.judge import Failure, Judged, Moves, failed, judge
from dynctl.fabric.ucx_log import UcxReader
from dynctl.preflight.path import check_path
from tests.unit.fabric import captures as cap
from tests.unit.fabric.test_ucx_log import read
from tests.unit.plan.machines import cpu, made, pools

AGGREGATED = "schema: 1\nname: agg\nmodel: builtin:tiny\nroles:\n  worker:\n"


class Probes:
    """Stands for the probes: every transfer comes to the same."""

    def __init__(self) -> None:
        self.asked = 0
        self.outcome: Moves | Failure = Moves(durations_us={4 << 20: (1000.0,)})
        self.reader = read(cap.CONNECT, cap.REAL_USED)

    def prove(self, plan: Any, hardware: Any, pairs: Any) -> tuple[tuple[Transfer, Judged], ...]:
        self.asked += 1
        return tuple((one, self._judged(one)) for one in transfers(plan, hardware, pairs))

    def _judged(self, one: Transfer) -> Judged:
        if isinstance(self.outcome, Failure):
            return failed(one, "read", self.outcome, self.reader)
        return judge(one, "read", self.outcome, self.reader)


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> Probes:
    stand_in = Probes()
    monkeypatch.setattr(probe, "prove_quickly", stand_in.prove)
    return stand_in


def test_a_path_that_meets_its_floor_is_a_line(probes: Probes) -> None:
    said: list[str] = []
    note = check_path(made(), cpu(), said.append)
    assert said == ["preflight: proving the KV path of 1 pair"]
    assert (note or "").startswith("preflight: KV goes over shm, 4.2 GB/s or more")


def test_a_slower_path_is_a_transport_error_with_ucxs_words(probes: Probes) -> None:
    probes.reader = read(cap.REAL_TCP)
    with pytest.raises(TransportError) as error:
        check_path(made(), cpu(), print)
    assert error.value.cause == "prefill-0 -> decode-0 goes over tcp; shm is required"
    assert any("software emulation | tcp/lo" in why for why in error.value.why)
    assert error.value.fix
    assert check_path(made(pools(more="transport: {require: tcp}\n"), on=cpu()), cpu(), print)


@pytest.mark.parametrize(("kind", "error"), [("backend", TransportError), ("crash", TransportError)])
def test_a_transfer_that_fails_is_a_transport_error(probes: Probes, kind: str, error: type[Exception]) -> None:
    probes.outcome, probes.reader = Failure(kind=kind, text="words"), read(cap.REAL_RC)
    with pytest.raises(error, match="can't be proven"):
        check_path(made(), cpu(), print)


@pytest.mark.parametrize("kind", ["no-nixl", "no-ucx", "no-python"])
def test_an_engine_without_nixl_is_the_hosts_fault(probes: Probes, kind: str) -> None:
    probes.outcome, probes.reader = Failure(kind=kind, text="words"), UcxReader()
    with pytest.raises(HostError) as error:
        check_path(made(), cpu(), print)
    assert error.value.why == ("words",)
    assert error.value.fix


@pytest.mark.parametrize("kind", ["not-nixl", "memory"])
def test_what_tells_nothing_of_the_path_is_only_said(probes: Probes, kind: str) -> None:
    probes.outcome, probes.reader = Failure(kind=kind, text="words"), UcxReader()
    note = check_path(made(), cpu(), print)
    assert note == "preflight: prefill-0 -> decode-0 not proven: words"


def test_nothing_is_asked_where_no_kv_is_handed_over(probes: Probes) -> None:
    assert check_path(made(AGGREGATED), cpu(), print) is None
    assert check_path(made(pools(more="transport: {backend: libfabric}\n"), on=cpu()), cpu(), print) is None
    assert probes.asked == 0
