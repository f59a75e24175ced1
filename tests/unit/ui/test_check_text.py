"""`check-rdma` as text: what a user reads at 80 columns."""

from __future__ import annotations

import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from dynctl.fabric.report import Report
from dynctl.ui.check_text import check_text

sys.path.insert(0, str(Path(__file__).parent))
import check_scenes as scenes

ALL = (scenes.cpu_node, scenes.broken_rdma, scenes.two_nodes, scenes.hostile, scenes.no_proof)


def shown(report: Report, width: int = 80, *, colour: bool = False) -> list[str]:
    stream = StringIO()
    Console(
        file=stream, width=width, force_terminal=colour, color_system="truecolor" if colour else None, highlight=False
    ).print(check_text(report, width))
    return stream.getvalue().splitlines()


GOLDEN = """\
ok: shm (CMA), 7.91 GB/s; required: auto

prefill-0 → decode-0  shm (CMA)
  READ of host memory, 7.91 GB/s ±4% at 256 MiB, 12 µs
  decode-0: intra-node cfg#1 | remote memory read by ucp_get*(multi) into host
  memory from host | 0..inf | zero-copy | cma/memory | 20 uses

this node
  ▲ warn  shm      64 MiB; expected 1 GiB or more
    cause too small for shared-memory transports
    fix   docker run --shm-size=8g
  ✓ pass  memlock  unlimited
  ✓ pass  ptrace   ptrace_scope 0

NIXL loads UCX 1.23.0
  NIXL 1.5.1
  cma, tcp
also here  UCX 1.13.1
  /usr/lib
  tcp

1 row skipped (no RDMA device in /sys/class/infiniband): dev
3 rows skipped because dev: uverbs, state, gid
1 problem, 2 passed, 2.41 s"""


def test_a_node_without_rdma() -> None:
    assert "\n".join(line.rstrip() for line in shown(scenes.cpu_node())) == GOLDEN


def test_the_worst_comes_first() -> None:
    lines = shown(scenes.broken_rdma())
    assert lines[0] == "not ok: not proven, 0.52 GB/s, 1 check failed; required: rdma"
    text = "\n".join(lines)
    order = ["prefill-1 → decode-1", "prefill-1 → decode-0", "prefill-0 → decode-1", "\nmlx5_1", "\nmlx5_2", "\nmlx5_0"]
    assert [text.index(word) for word in order] == sorted(text.index(word) for word in order)
    assert "    fix   ip link set ens1f1np1 up" in lines
    assert "3 rows skipped because state: gid, rate, mtu" in lines


def test_the_matrix_has_verdict_and_rate() -> None:
    lines = shown(scenes.broken_rdma())
    assert "prefill-1    tcp 0.5    unknown" in lines
    assert "a          tcp 0.8        –" in [line.rstrip() for line in shown(scenes.two_nodes())]


@pytest.mark.parametrize("scene", ALL)
@pytest.mark.parametrize("width", [40, 80, 200])
def test_nothing_is_wider_than_the_view(scene: object, width: int) -> None:
    report = scene()  # type: ignore[operator]
    assert max(len(line) for line in shown(report, width)) <= width


@pytest.mark.parametrize("scene", ALL)
def test_colour_only_repeats_what_the_words_say(scene: object) -> None:
    report = scene()  # type: ignore[operator]
    assert not any("\x1b" in line for line in shown(report))
    assert any("\x1b" in line for line in shown(report, colour=True))


def test_many_rows_that_pass_are_folded() -> None:
    assert sum("✓" in line for line in shown(scenes.broken_rdma())) == 3
    assert "  ✓ pass  ptrace   ptrace_scope 0" in [line.rstrip() for line in shown(scenes.cpu_node())]
