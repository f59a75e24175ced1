"""From UCX's tables to a verdict, and the words for one that is too slow."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynctl.fabric.verdict import explain, lane_class, meets, tls_classes, verdict, worst
from dynctl.plan.values import CLASS_ORDER, TransportClass
from dynctl.telemetry.status import Verdict
from tests.unit.fabric import captures as cap
from tests.unit.fabric.test_ucx_log import read


def judge(*texts: str, push: bool = False, transfer_bytes: int | None = None) -> Verdict:
    return verdict(read(*texts).tables, direction="push" if push else "pull", transfer_bytes=transfer_bytes)[0]


def test_cma_is_shared_memory_though_the_lane_line_says_tcp() -> None:
    reader = read(cap.SELF, cap.CONNECT, cap.REAL_CMA)
    reached, evidence = verdict(reader.tables, direction="pull")
    assert reached == "shm"
    assert [e.kind for e in evidence] == ["planned"]
    assert evidence[0].source == "decode-0.log"
    assert "ucp_get*(multi) into host memory from host" in evidence[0].line
    assert evidence[0].line.endswith("0..inf | zero-copy | cma/memory")


def test_emulation_over_tcp_is_tcp_and_use_counts_are_better_evidence() -> None:
    assert judge(cap.SELF, cap.REAL_TCP) == "tcp"
    reached, evidence = verdict(read(cap.REAL_TCP, cap.REAL_USED).tables, direction="pull")
    assert (reached, evidence[0].kind) == ("shm", "used")
    assert evidence[0].line.endswith("4 uses")


def test_before_any_transfer_there_is_no_verdict() -> None:
    assert judge(cap.SELF) == "unknown"
    assert judge(cap.SELF, cap.CONNECT) == "unknown"
    assert judge(cap.SELF, cap.CONNECT, push=True) == "unknown", "the put table of a new endpoint is not a transfer"
    assert judge(cap.SELF, cap.CONNECT, cap.REAL_CMA, push=True) == "unknown", "a read is no evidence for a push"


def test_a_push_is_judged_by_the_writes_of_the_prefill_worker() -> None:
    assert judge(cap.SELF, cap.CONNECT, cap.REAL_PUSH, push=True) == "shm"
    assert judge(cap.SELF, cap.CONNECT, cap.REAL_PUSH) == "unknown"


def test_a_tcp_put_is_tcp_though_it_calls_itself_zero_copy() -> None:
    text = cap.CONNECT.replace("ucp_put*", "ucp_put*(multi)").replace("cma/memory  ", "tcp/lo  ")
    assert judge(text, push=True) == "tcp"


@pytest.mark.parametrize(
    ("transfer_bytes", "expected"),
    [(None, "rdma"), (32, "tcp"), (64, "tcp"), (65, "rdma"), (1 << 30, "rdma")],
)
def test_the_size_of_a_descriptor_picks_the_row(transfer_bytes: int | None, expected: Verdict) -> None:
    assert judge(cap.MADE_RDMA, transfer_bytes=transfer_bytes) == expected


def test_a_size_that_no_row_serves_is_unknown() -> None:
    text = "\n".join(line for line in cap.MADE_RDMA.splitlines() if "256K..inf" not in line)
    assert judge(text, transfer_bytes=1 << 30) == "unknown"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("cuda_ipc/cuda", "nvlink"),
        ("rc_mlx5/mlx5_0:1", "rdma"),
        ("rc_verbs/mlx5_bond_0:1", "rdma"),
        ("dc_mlx5/mlx5_3:1", "rdma"),
        ("ud_mlx5/mlx5_0:1", "rdma"),
        ("srd/rdmap0s6:1", "rdma"),
        ("50% on rc_mlx5/mlx5_0:1 and 50% on rc_mlx5/mlx5_1:1", "rdma"),
        ("25% on rc_mlx5/a:1/path0, 25% on rc_mlx5/b:1/path0, 50% on rc_mlx5/c:1/path0", "rdma"),
        ("rc_mlx5/mlx5_11:1 50% on path0 and 50% on path1", "rdma"),
        ("knem/memory", "shm"),
        ("xpmem/memory", "shm"),
        ("sysv/memory", "shm"),
        ("posix/memory", "shm"),
        ("gdr_copy/cuda", "shm"),
        ("tcp/eth0", "tcp"),
        ("55% on knem/memory and 45% on rc_mlx5/mlx5_0:1", "mixed"),
        ("rc_mlx5/mlx5_0:1 and brand_new/dev", "unknown"),
        ("", "unknown"),
    ],
)
def test_classes(config: str, expected: Verdict) -> None:
    assert judge(cap.made_table(config)) == expected


def test_gpu_tables_outweigh_those_of_host_memory_and_the_worst_counts() -> None:
    host = cap.made_table("tcp/lo", memory="host memory from host")
    assert judge(host, cap.made_table("cuda_ipc/cuda")) == "nvlink"
    assert judge(cap.made_table("cuda_ipc/cuda"), cap.made_table("tcp/eth0")) == "tcp"
    assert judge(cap.MADE_OLD_LAYOUT, push=True) == "rdma"


def test_worst_of_pairs() -> None:
    assert worst([]) == "unknown"
    assert worst(["nvlink", "rdma"]) == "rdma"
    assert worst(["mixed", "rdma", "shm"]) == "mixed"
    assert worst(["mixed", "tcp"]) == "tcp"
    assert worst(["tcp", "unknown"]) == "unknown"


@pytest.mark.parametrize("floor", CLASS_ORDER)
def test_floors(floor: TransportClass) -> None:
    met = [c for c in get_args(Verdict) if meets(c, floor)]
    expected = list(CLASS_ORDER[: CLASS_ORDER.index(floor) + 1]) + (["mixed"] if floor == "tcp" else [])
    assert sorted(met) == sorted(expected)


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("tcp", {"tcp"}),
        ("rc,tcp", {"rdma", "tcp"}),
        ("self,sm,tcp", {"shm", "tcp"}),
        ("^tcp", {"nvlink", "rdma", "shm"}),
        ("^ib,cuda_ipc", {"shm", "tcp"}),
        ("^cma", {"nvlink", "rdma", "shm", "tcp"}),
        ("all", set(CLASS_ORDER)),
        ("rc,cuda", {"rdma", "nvlink"}),
        ("cuda_copy,self", set()),
        ("", set()),
    ],
)
def test_what_ucx_tls_leaves(text: str, classes: set[str]) -> None:
    assert tls_classes(text) == classes


def test_explaining_a_forced_tcp() -> None:
    why, fix = explain("tcp", read(cap.SELF, cap.REAL_TCP), "shm")
    assert why == ("UCX_TLS=tcp allows nothing faster than tcp",)
    assert fix is not None
    assert "remove UCX_TLS" in fix


def test_explaining_no_rdma_device() -> None:
    why, fix = explain("shm", read(cap.SELF, cap.CONNECT, cap.REAL_CMA), "rdma")
    assert "no RDMA device" in why[0]
    assert fix is not None
    assert "transport.require: shm" in fix


def test_explaining_an_unavailable_transport_and_refused_emulation() -> None:
    why, fix = explain("unknown", read(cap.REAL_RC), "rdma")
    assert "transport 'rc' is not available" in why[0]
    assert "UCX_TLS" in (fix or "")
    why, _ = explain("unknown", read(cap.REAL_NO_EMULATION), "shm")
    assert why[0].endswith("get into host from host, 393216 bytes")


@pytest.mark.parametrize(
    ("texts", "reached", "required", "words"),
    [
        ((), "unknown", "shm", "UCX wrote nothing"),
        ((cap.SELF,), "unknown", "shm", "named no protocol"),
        ((cap.MADE_RDMA,), "tcp", "rdma", "does not use them"),
        ((cap.made_table("rc_mlx5/mlx5_0:1"),), "rdma", "nvlink", "NVLink peer access"),
        ((cap.SELF, cap.CONNECT), "tcp", "shm", "does not use CMA"),
        ((cap.CONNECT.replace("intra-node", "inter-node"),), "tcp", "shm", "pid namespace"),
    ],
)
def test_likely_causes(texts: tuple[str, ...], reached: Verdict, required: TransportClass, words: str) -> None:
    why, fix = explain(reached, read(*texts), required)
    assert words in why[0]
    assert fix


@given(st.text(), st.sampled_from(get_args(Verdict)), st.sampled_from(CLASS_ORDER))
def test_nothing_raises(text: str, reached: Verdict, required: TransportClass) -> None:
    reader = read(cap.made_table(text), f"[1.0] [h:1 :0] a.c:1 UCX INFO UCX_* env variables: UCX_TLS={text}\n")
    verdict(reader.tables, direction="pull", transfer_bytes=1)
    explain(reached, reader, required)
    lane_class(text)
