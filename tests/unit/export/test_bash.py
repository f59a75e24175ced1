"""The script that `dynctl export bash` writes. tests/integration/test_export.py runs one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dynctl.export.bash import bash
from dynctl.export.launches import launches
from tests.unit.export.plans import PLANS, plan, two_nodes

SHELLCHECK = Path(sys.executable).parent / "shellcheck"


@pytest.mark.parametrize("name", PLANS)
def test_shellcheck_has_nothing_to_say(name: str) -> None:
    tool = str(SHELLCHECK) if SHELLCHECK.exists() else shutil.which("shellcheck")
    if tool is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([tool, "-"], input=bash(PLANS[name]), text=True, capture_output=True, check=False)
    assert done.stdout == ""
    assert done.returncode == 0


@pytest.mark.parametrize("name", PLANS)
def test_words_arrive_as_planned(name: str, tmp_path: Path) -> None:
    """Every process, with `exec setsid` replaced by what prints what it got."""
    show = tmp_path / "show"
    show.write_text('#!/bin/bash\nprintf "%s\\0" "$@" "ODD=$ODD" >&3\n')
    show.chmod(0o755)
    made = PLANS[name]
    blocks = bash(made).split("started ")
    for block, launch in zip(blocks, launches(made), strict=False):
        if launch.role == "frontend":
            continue
        run, odd = (block.rsplit(f"  {word}", 1)[1].split("\n")[0] for word in ("exec setsid ", "export ODD="))
        script = f"exec 3>&1; EPOCH=7; export ODD={odd}\n{show} {run}"
        done = subprocess.run(["bash", "-uc", script], capture_output=True, text=True, check=True)
        *words, variable, _ = done.stdout.split("\0")
        assert words == ["taskset", "-c", "0-3,8", *(word.replace("{epoch}", "7") for word in launch.argv)]
        assert variable == f"ODD={launch.env['ODD']}"


def test_the_frontend_is_told_its_workers_and_starts_last() -> None:
    *workers, front = launches(plan())
    assert [one.id for one in workers] == ["prefill-0", "decode-0"]
    assert front.argv[3:] == (
        "frontend", "--port", "8000", "--prefill", "http://127.0.0.1:1", "--decode", "http://127.0.0.1:2",
    )  # fmt: skip
    text = bash(plan())
    assert text.index("started decode-0") < text.index("await decode-0") < text.index("started frontend")


def test_a_worker_that_shares_a_gpu_waits_for_the_one_before() -> None:
    text = bash(PLANS["one after the other"])
    assert text.index("await prefill-0 ") < text.index("started decode-0")
    assert text.count("await prefill-0 ") == 1


def test_each_node_has_its_own_processes_and_the_frontend_waits_for_all() -> None:
    a, b = bash(two_nodes("a")), bash(two_nodes("b"))
    assert "started decode-0.1" in b
    assert "started frontend" not in b
    assert "started prefill-0" not in a
    assert a.index("await http://127.0.0.1:1/health") < a.index("started frontend")


def test_no_secret_is_in_it() -> None:
    text = bash(plan())
    assert "***" not in text
    assert ': "${HF_TOKEN:?' in text
