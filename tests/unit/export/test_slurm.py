"""The batch job that `dynctl export slurm` writes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from dynctl.export.slurm import sbatch
from tests.unit.export.plans import PLANS, plan, two_nodes


def options(text: str) -> dict[str, str]:
    """The `#SBATCH` lines, which Slurm reads up to the first command."""
    found = {}
    for line in text.splitlines()[1:]:
        if not line.startswith("#"):
            break
        if line.startswith("#SBATCH"):
            option = re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(\S+))?", line)
            assert option, line
            found[option[1]] = option[2] or ""
    assert len(found) == text.count("\n#SBATCH")
    return found


@pytest.mark.parametrize("name", PLANS)
def test_bash_reads_it(name: str) -> None:
    done = subprocess.run(
        ["bash", "-n"], input=sbatch(PLANS[name], "1:00"), text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_it_asks_for_what_the_plan_uses() -> None:
    asked = options(sbatch(plan(), "08:00:00"))
    assert asked["nodes"] == asked["ntasks-per-node"] == "1"
    assert (asked["gpus-per-node"], asked["cpus-per-task"], asked["time"]) == ("2", "5", "08:00:00")
    assert asked["signal"] == "B:TERM@100"
    assert "nodelist" not in asked


def test_gpus_are_named_by_number_on_a_machine_of_the_same_kind() -> None:
    text = sbatch(plan(), "1:00")
    assert "CUDA_VISIBLE_DEVICES=2,3" in text
    assert "GPU-a" not in text


def test_each_node_runs_its_own_part(tmp_path: Path) -> None:
    """With stand-ins of srun and hostname: the part whose address the node has, and no other."""
    text = sbatch(two_nodes(), "1:00")
    assert (options(text)["nodes"], options(text)["nodelist"]) == ("2", "a,b")
    for name, said in (("srun", 'exec bash "${@:3}"'), ("hostname", "echo 127.0.0.1 10.0.0.2"), ("curl", "exit 1")):
        (tmp_path / name).write_text(f"#!/bin/bash\n{said}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7", "SLURM_SUBMIT_DIR": str(tmp_path)}
    environment |= {"HF_TOKEN": "x", "DYNCTL_ENGINE_KEY_FILE": str(tmp_path / "key")}
    (tmp_path / "key").write_text("k")
    done = subprocess.run(
        ["bash"], input=text, text=True, capture_output=True, env=environment, check=False, timeout=60
    )
    assert done.returncode == 1  # there is no such engine here
    assert "decode-0.1: started" in done.stderr
    assert "decode-0: started" not in done.stderr
    assert done.stderr.rstrip().endswith("ended")


def test_a_node_that_is_none_of_them_says_so() -> None:
    assert "has none of the topology's addresses" in sbatch(two_nodes(), "1:00")
