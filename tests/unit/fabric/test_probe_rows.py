"""The rows on the UCX that NIXL loads."""

from __future__ import annotations

from typing import Any

import pytest

from dynctl.fabric.probe.judge import Failure
from dynctl.fabric.probe.rows import Found, others, rows
from dynctl.fabric.report import Check, UcxLibrary
from dynctl.fabric.ucx_log import UcxReader
from tests.unit.fabric import captures as cap
from tests.unit.fabric.test_ucx_log import read

LIBRARY = UcxLibrary(
    source="NIXL 1.5.1",
    version="1.23.0",
    path="/opt/libucp.so",
    transports=("self", "tcp", "cma"),
    devices=("lo",),
    used=True,
)
WARNING = (
    "[1.0] [vm:1 :0] ucp_context.c:1508 UCX  WARN  transport 'rc' is not available,"
    " please use one or more of: cma, mm, posix, self, shm, sm, sysv, tcp\n"
)
NO_DEVICE = (
    "[1.0] [vm:1 :0] ucp_context.c:900 UCX  WARN  network device 'mlx5_0:1' is not available,"
    " please use one or more of: 'eth0'(tcp), 'lo'(tcp)\n"
)


def told(reader: UcxReader | None = None, **changes: Any) -> dict[str, Check]:
    fields: dict[str, Any] = {
        "targets": ("prefill-0", "decode-0"),
        "python": "/opt/python",
        "library": LIBRARY,
        "floors": ("shm",),
        "reached": ("shm",),
        **changes,
    }
    return {row.id: row for row in rows(Found(**fields), reader or UcxReader())}


def library(**changes: Any) -> UcxLibrary:
    return UcxLibrary(**{**{name: getattr(LIBRARY, name) for name in LIBRARY.__struct_fields__}, **changes})


def test_a_usable_ucx_passes_and_is_named() -> None:
    found = told()
    assert {row.status for row in found.values()} == {"pass"}
    assert "UCX 1.23.0 at /opt/libucp.so: self, tcp, cma over lo" in (found["ucx"].observed or "")
    assert found["ucx"].target == "prefill-0, decode-0"


def test_rdma_required_and_only_tcp_found() -> None:
    row = told(floors=("rdma",))["ucx"]
    assert (row.status, "no RDMA device" in (row.cause or "")) == ("fail", True)
    assert told(floors=("rdma",), library=library(transports=("tcp", "rc_mlx5")))["ucx"].status == "pass"


def test_an_old_ucx_is_a_warning() -> None:
    assert told(library=library(version="1.18.1"))["ucxver"].status == "warn"


@pytest.mark.parametrize("kind", ["no-nixl", "not-nixl", "no-ucx", "no-python", "crash"])
def test_without_nixl_the_other_rows_are_skipped_because_of_it(kind: str) -> None:
    found = told(library=UcxLibrary(source="NIXL"), failure=Failure(kind=kind, text="words"), reached=())
    assert (found["ucx"].status, found["ucx"].cause) == ("fail", "words")
    assert found["ucx"].fix
    assert {found[name].cause for name in ("ucxver", "tls", "netdev")} == {"because ucx"}


@pytest.mark.parametrize(
    ("tls", "text", "changes", "status", "words"),
    [
        ("rc,tcp", WARNING, {"reached": ("tcp",), "floors": ("tcp",)}, "warn", "fell back to tcp without an error"),
        ("rc,tcp", WARNING, {"reached": ("tcp",)}, "fail", "fell back to tcp"),
        ("rc", cap.REAL_RC, {"reached": ()}, "fail", "which this host lacks: UCX finds no RDMA device"),
        ("tcp", "", {"reached": ("tcp",), "floors": ("tcp",)}, "warn", "nothing faster than tcp"),
        ("tcp", "", {"reached": ("tcp",)}, "fail", "nothing faster than tcp"),
        ("rc", "", {"on_gpu": True, "floors": ("rdma",)}, "fail", "GPU memory"),
        ("rc,cuda", "", {"on_gpu": True, "floors": ("rdma",)}, "pass", ""),
        ("^cuda", "", {"on_gpu": True, "floors": ("rdma",)}, "fail", "GPU memory"),
        ("cma,tcp", "", {}, "pass", ""),
    ],
)
def test_what_ucx_tls_does(tls: str, text: str, changes: dict[str, Any], status: str, words: str) -> None:
    row = told(read(text) if text else None, env={"UCX_TLS": tls}, **changes)["tls"]
    assert row.status == status
    assert words in (row.cause or "")
    assert (row.fix is None) == (status == "pass")


@pytest.mark.parametrize(
    ("devices", "text", "status", "words"),
    [
        ("mlx5_0:1", NO_DEVICE, "fail", "'mlx5_0:1' is not available"),
        ("mlx5_0", "", "fail", "without its port"),
        ("mlx5_0:1,eth0", "", "warn", "mixed"),
        ("mlx5_0:1,lo", "", "pass", ""),
        ("lo", "", "pass", ""),
    ],
)
def test_what_ucx_net_devices_does(devices: str, text: str, status: str, words: str) -> None:
    row = told(read(text) if text else None, env={"UCX_NET_DEVICES": devices}, nics=("mlx5_0",))["netdev"]
    assert (row.status, words in (row.cause or "")) == (status, True)


def test_another_ucx_beside_nixls() -> None:
    (row,) = others(LIBRARY, (UcxLibrary(source="the system's UCX", version="1.13.1", transports=("tcp",)),))
    assert (row.id, row.status) == ("ucxother", "warn")
    assert "NIXL loads UCX 1.23.0" in (row.cause or "")
    (row,) = others(LIBRARY, (UcxLibrary(source="the system's UCX", version="1.23.0"),))
    assert row.status == "pass"
    assert [row.status for row in others(LIBRARY, ())] == ["pass"]
