"""From what one transfer left behind to its report: what does not agree is `unknown`, and says why."""

from __future__ import annotations

import msgspec
import pytest

from dynctl.fabric.probe.ends import End, Transfer
from dynctl.fabric.probe.judge import Failure, Judged, Moves, failed, judge
from dynctl.fabric.ucx_log import UcxReader
from dynctl.plan.values import TransportClass
from tests.unit.fabric import captures as cap
from tests.unit.fabric.test_ucx_log import read

MIB = 1 << 20


def end(role: str, nics: tuple[str, ...] = (), gpu: int | None = None) -> End:
    memory = "host" if gpu is None else "cuda"
    return End(
        id=f"{role}-0", process=f"{role}-0", node="local", python="python", env={}, memory=memory, gpu=gpu, nics=nics
    )


def transfer(floor: TransportClass = "shm", *, nics: tuple[str, ...] = (), rate: float | None = None) -> Transfer:
    gpus = (0, 1) if nics else (None, None)
    return Transfer(
        source=end("prefill", nics[:1], gpus[0]),
        target=end("decode", nics[-1:], gpus[1]),
        floor=floor,
        line_rate_gigabytes_per_s=rate,
    )


def moved(us: float = 1000.0, size: int = 16 * MIB, times: int = 3) -> Moves:
    return Moves(durations_us={64 << 10: (20.0,), size: (us,) * times})


RDMA_LANES = "[1795460000.1] [gpu-a:4100 :0] ucp_worker.c:1997 UCX  INFO  d intra-node cfg#2 rma(rc_mlx5/mlx5_1:1) \n"


def used(text: str, uses: int) -> str:
    """The same table with use counts."""
    lines = [line.replace("| 0..inf |", f"| {uses} | 0..inf |") for line in text.splitlines()]
    return "\n".join(line.replace("| Range |", "| Count | Range |") for line in lines) + "\n"


def rdma(uses: int = 4) -> UcxReader:
    return read(RDMA_LANES, used(cap.made_table("rc_mlx5/mlx5_1:1"), uses))


def test_shared_memory_with_use_counts_and_lanes() -> None:
    one = judge(transfer(), "read", moved(), read(cap.SELF, cap.CONNECT, cap.REAL_USED))
    report = one.report
    assert (report.verdict, report.error, one.check.status) == ("shm", None, "pass")
    assert [item.kind for item in report.evidence] == ["used", "lane"]
    assert report.gigabytes_per_s == pytest.approx(16.777, rel=1e-3)
    assert (report.size_bytes, report.latency_us, report.spread) == (16 * MIB, 20.0, 0.0)
    assert report.fraction_of_line_rate is None
    assert set(report.gigabytes_per_s_by_size) == {64 << 10, 16 * MIB}
    assert (report.from_, report.to, report.memory) == ("prefill-0", "decode-0", "host")


def test_what_is_slower_than_its_floor_fails_with_cause_and_fix() -> None:
    one = judge(transfer("shm"), "read", moved(), read(cap.REAL_TCP))
    assert (one.report.verdict, one.check.status, one.check.id) == ("tcp", "fail", "pair")
    assert "UCX_TLS=tcp allows nothing faster than tcp" in (one.check.cause or "")
    assert one.check.fix
    assert judge(transfer("tcp"), "read", moved(), read(cap.REAL_TCP)).check.status == "pass"


def test_fewer_uses_than_transfers_are_no_proof() -> None:
    one = judge(transfer(), "read", moved(times=9), read(cap.CONNECT, cap.REAL_USED))
    assert one.report.verdict == "unknown"
    assert "4 uses for 10 transfers" in (one.report.error or "")


def test_an_endpoint_without_such_a_lane_is_no_proof() -> None:
    one = judge(transfer("rdma"), "read", moved(), read(cap.CONNECT, used(cap.made_table("rc_mlx5/mlx5_0:1"), 9)))
    assert one.report.verdict == "unknown"
    assert "no such lane" in (one.report.error or "")
    assert one.check.status == "fail"


@pytest.mark.parametrize(
    ("sent", "reached", "words"),
    [
        (60 * MIB, "rdma", None),
        (1 * MIB, "unknown", "the NICs sent 1,048,576 bytes"),
        (None, "rdma", None),
    ],
)
def test_nic_counters_must_agree_with_ucx(sent: int | None, reached: str, words: str | None) -> None:
    counters = None if sent is None else {"mlx5_0": sent}
    one = judge(transfer("rdma", nics=("mlx5_0", "mlx5_1")), "read", moved(), rdma(), sent_bytes=counters)
    assert one.report.verdict == reached
    assert (words or "") in (one.report.error or "")
    assert [item.kind for item in one.report.evidence if item.kind == "counter"] == ["counter"] * (sent is not None)


def test_a_nic_that_sends_while_ucx_names_nvlink() -> None:
    reader = read(used(cap.made_table("cuda_ipc/cuda"), 4))
    one = judge(transfer("nvlink", nics=("mlx5_0",)), "read", moved(), reader, sent_bytes={"mlx5_0": 60 * MIB})
    assert one.report.verdict == "unknown"
    assert "nvlink, but the NICs sent" in (one.report.error or "")


@pytest.mark.parametrize(("us", "status"), [(360.0, "pass"), (480.0, "warn"), (1000.0, "fail")])
def test_a_rate_far_below_the_line_rate(us: float, status: str) -> None:
    one = judge(transfer("rdma", nics=("mlx5_0", "mlx5_1"), rate=50.0), "read", moved(us), rdma())
    assert one.check.status == status
    assert one.report.fraction_of_line_rate == pytest.approx(16 * MIB / us / 1e3 / 50)
    assert (one.report.nics, one.report.gpu) == (("mlx5_0", "mlx5_1"), 1)


@pytest.mark.parametrize(("lenient", "status"), [(True, "warn"), (False, "fail")])
def test_a_path_that_ucx_does_not_name(lenient: bool, status: str) -> None:
    one = judge(transfer(), "read", moved(), read(cap.SELF), lenient=lenient)
    assert (one.report.verdict, one.check.status) == ("unknown", status)
    assert "named no protocol" in (one.report.error or "")


def test_a_failure_is_explained_by_what_ucx_complains_of() -> None:
    one = failed(transfer(), "read", Failure(kind="backend", text="NIXL_ERR_BACKEND"), read(cap.REAL_RC))
    assert (one.report.verdict, one.check.status) == ("unknown", "fail")
    assert "'rc' is not available" in (one.report.error or "")
    assert "UCX_TLS" in (one.report.fix or "")


@pytest.mark.parametrize("kind", ["no-python", "no-nixl", "no-ucx", "memory", "deadline", "data", "crash"])
def test_every_other_failure_has_a_fix(kind: str) -> None:
    one: Judged = failed(transfer(), "write", Failure(kind=kind, text="words"), UcxReader())
    assert one.report.error == "words"
    assert one.check.fix
    assert msgspec.json.encode(one.report)
