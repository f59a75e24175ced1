"""Reading UCX's lines out of a worker's log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynctl.fabric.ucx_log import UcxReader, is_ucx_line, parse_range
from tests.unit.fabric import captures as cap


def read(*texts: str) -> UcxReader:
    reader = UcxReader("decode-0.log")
    for line in "".join(texts).splitlines(keepends=True):
        reader.feed(line)
    return reader


def test_a_real_log_gives_tables_lanes_version_and_environment() -> None:
    reader = read(cap.SELF, cap.CONNECT, cap.REAL_CMA)
    assert reader.version == "1.23.0"
    assert reader.library == "/opt/libucp-b39b3ed9.so.0.0.0"
    assert reader.env["UCX_PROTO_INFO"] == "*remote memory*"
    assert reader.env["UCX_RCACHE_MAX_UNRELEASED"] == "1024"
    assert [(t.endpoint, t.operation, t.multi) for t in reader.tables] == [
        ("self", "put", False),
        ("intra-node", "put", False),
        ("intra-node", "get", True),
    ]
    table = reader.tables[-1]
    assert (table.pid, table.cfg, table.at, table.source) == (8160, 1, 1795453496.393650, "decode-0.log")
    assert (table.memory_local, table.memory_remote) == ("host", "host")
    assert table.lines == tuple(cap.REAL_CMA.splitlines())
    row = table.rows[0]
    assert (row.range_text, row.lo_bytes, row.hi_bytes, row.description) == ("0..inf", 0, None, "zero-copy")
    assert (row.lanes, row.count) == (("cma/memory",), None)
    lanes = reader.lanes[-1]
    assert (lanes.endpoint, lanes.cfg, lanes.name) == ("intra-node", 1, "82995130-3edd-42a4-b0cf-cbdeca0")
    assert lanes.lanes == {
        "rma_am": ("tcp/lo",),
        "amo_am": ("tcp/lo",),
        "am": ("tcp/lo", "cma/memory"),
        "ka": ("tcp/lo",),
    }


def test_use_counts_are_read() -> None:
    (table,) = read(cap.REAL_USED).tables
    assert [(row.count, row.config) for row in table.rows] == [(4, "cma/memory")]


def test_several_lanes_ranges_and_estimates() -> None:
    (table,) = read(cap.MADE_RDMA).tables
    assert (table.memory_local, table.memory_remote) == ("cuda/GPU0", "cuda")
    assert [(row.lo_bytes, row.hi_bytes) for row in table.rows] == [
        (0, 0),
        (1, 64),
        (65, 256 << 10),
        (256 << 10, None),
    ]
    assert table.rows[2].lanes == ("rc_mlx5/mlx5_0:1",)
    assert table.rows[3].lanes == ("rc_mlx5/mlx5_0:1", "rc_mlx5/mlx5_1:1")
    assert (table.rows[3].description, table.rows[3].estimate) == ("zero-copy", True)


def test_the_layout_before_1_21() -> None:
    (table,) = read(cap.MADE_OLD_LAYOUT).tables
    assert (table.endpoint, table.operation, table.memory_local, table.memory_remote) == (
        "inter-node",
        "put",
        "cuda/GPU1",
        "cuda/dev[1]",
    )
    assert [row.description for row in table.rows] == ["short", "zero-copy"]


def test_lines_of_other_threads_processes_and_the_engine_alternate() -> None:
    tcp = cap.REAL_TCP.splitlines(keepends=True)
    cma = cap.REAL_CMA.splitlines(keepends=True)
    thread = [line.replace(":8160 :0]", ":8160 :7]").replace("cfg#1", "cfg#5") for line in cma]
    mixed = []
    for i in range(max(len(tcp), len(cma))):
        mixed += ["(EngineCore pid=9) INFO | a table | of another kind |\n", *tcp[i : i + 1], *cma[i : i + 1]]
        mixed += thread[i : i + 1]
    reader = read(*mixed)
    found = {(table.pid, table.cfg): [row.config for row in table.rows] for table in reader.tables}
    assert found == {(9602, 1): ["tcp/lo"], (8160, 1): ["cma/memory"], (8160, 5): ["cma/memory"]}


def test_a_line_glued_to_the_engines_output_is_found() -> None:
    glued = "".join(f"INFO no line end{line}" for line in cap.REAL_CMA.splitlines(keepends=True))
    assert len(read(glued).tables) == 1


@pytest.mark.parametrize("kept", range(8))
def test_a_table_cut_at_its_end_never_shows_a_row_it_did_not_have(kept: int) -> None:
    lines = cap.REAL_CMA.splitlines(keepends=True)[:kept]
    reader = read(*lines)
    assert reader.tables == []
    reader.feed("[1795453497.0] [vm:8160 :0]  x.c:1 UCX  INFO  something else\n")
    assert len(reader.tables) == (1 if kept == 7 else 0)


def test_a_table_whose_head_was_rotated_away_is_dropped() -> None:
    lines = cap.REAL_CMA.splitlines(keepends=True)[2:]
    assert read(*lines).tables == []


def test_tables_of_active_messages_are_the_control_path_and_ignored() -> None:
    text = cap.REAL_CMA.replace("remote memory read by ucp_get*(multi) into", "active message by ucp_am_send* from")
    assert read(text).tables == []


def test_complaints() -> None:
    reader = read(cap.REAL_RC, cap.REAL_NO_EMULATION)
    assert [(e.kind, e.level) for e in reader.errors] == [
        ("no-transport-of-that-name", "warn"),
        ("no-usable", "error"),
        ("no-zero-copy", "error"),
    ]
    assert reader.errors[0].subject == "rc"
    assert reader.errors[1].subject.startswith("asked rc")
    device = read("[1795453587.4] [vm:1 :0] a.c:1 UCX  WARN  network device 'mlx5_0:1' is not available, please use\n")
    assert (device.errors[0].kind, device.errors[0].subject) == ("no-device-of-that-name", "mlx5_0:1")


@pytest.mark.parametrize(
    ("line", "ours"),
    [
        ("[1795452716.896819] [vm:3328 :1]      ucp_worker.c:1997 UCX  INFO    a self cfg#0", True),
        ("[1795452717.284189] [vm:33280:0]   +--------+", True),
        ("(EngineCore pid=3328) INFO 11-23 [core.py:1] started", False),
        ("2026-11-23 17:04:03 NIXL INFO    _api.py:405 Backend UCX was instantiated", False),
        ("", False),
    ],
)
def test_is_ucx_line(line: str, ours: bool) -> None:
    assert is_ucx_line(line) is ours


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("0..inf", (0, None)),
        ("64K..1M", (65536, 1 << 20)),
        ("0", (0, 0)),
        ("2G..inf", (2 << 30, None)),
        ("Range", None),
        ("", None),
        ("1..", None),
    ],
)
def test_ranges(text: str, bounds: tuple[int, int | None] | None) -> None:
    assert parse_range(text) == bounds


PREFIX = "[1795460001.000000] [gpu-a:4200 :0]   "
FRAGMENTS = st.sampled_from(
    [
        "+--+",
        "|",
        "||",
        "| a self cfg#0 |",
        "| b inter-node cfg#99 | remote memory read by ucp_get* into host from host |",
        "| remote memory write by ucp_put*(multi) from cuda to cuda |",
        "| Range | Config |",
        "| 0..inf | zero-copy | tcp/lo |",
        "| ² | 0..9 | | |",
        "a.c:1 UCX  ERROR no usable transports/devices",
        "a.c:1 UCX  INFO UCX_* env variables: UCX_TLS=",
    ]
)


@given(st.lists(st.one_of(st.text(), st.text().map(PREFIX.__add__), FRAGMENTS.map(PREFIX.__add__)), max_size=20))
def test_nothing_raises(lines: list[str]) -> None:
    read("\n".join(lines))
