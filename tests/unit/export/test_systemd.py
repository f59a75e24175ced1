"""The units that `dynctl export systemd` writes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from dynctl.engines.spec import Restart
from dynctl.export.systemd import units
from dynctl.plan.values import Plan
from tests.unit.export.plans import FRONTEND, PLANS, plan, two_nodes, worker


@pytest.mark.parametrize("name", PLANS)
def test_systemd_accepts_them(name: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    for file, text in units(_runnable(PLANS[name])).items():
        (tmp_path / file).write_text(text)
    files = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run(["systemd-analyze", "verify", *files], text=True, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    said = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "dynctl-p" in line]
    assert said == []


def _runnable(made: Plan) -> Plan:
    """With an interpreter that is there, as systemd looks for it."""
    own = (msgspec.structs.replace(one, argv=(sys.executable, *one.argv[1:])) for one in made.processes)
    return msgspec.structs.replace(made, processes=tuple(own))


def lines(made: Plan, name: str) -> list[str]:
    """A service's."""
    return units(made)[f"dynctl-p-{name}.service"].splitlines()


def test_there_is_a_service_for_each_process_and_a_target_for_all() -> None:
    made = units(plan())
    assert set(made) == {
        f"dynctl-p{part}" for part in ("-prefill-0.service", "-decode-0.service", "-frontend.service", ".target")
    }
    assert (
        "Wants=dynctl-p-prefill-0.service dynctl-p-decode-0.service dynctl-p-frontend.service"
        in made["dynctl-p.target"]
    )


def test_the_frontend_starts_after_workers_that_are_ready() -> None:
    said = lines(plan(), "frontend")
    assert "After=network-online.target dynctl-p-prefill-0.service dynctl-p-decode-0.service" in said
    (ready,) = [line for line in lines(plan(), "decode-0") if line.startswith("ExecStartPost=")]
    assert "http://127.0.0.1:2/health" in ready


def test_pins_and_restart_rules_are_carried_over() -> None:
    rule = Restart(max=2, backoff_s=5.0, cap_s=60.0)
    said = lines(plan(worker("worker-0", "worker", 1, restart=rule), FRONTEND), "worker-0")
    for line in (
        "CPUAffinity=0-3 8", "NUMAPolicy=preferred", "NUMAMask=1", "Restart=always", "RestartSec=5",
        "StartLimitBurst=3",
    ):  # fmt: skip
        assert line in said
    assert "Restart=no" in lines(plan(worker("worker-0", "worker", 1, restart=Restart(max=0)), FRONTEND), "worker-0")


def test_words_are_escaped_for_systemd() -> None:
    said = lines(plan(), "prefill-0")
    (command,) = [line for line in said if line.startswith("ExecStart=")]
    assert r'"{\"a\": \"b c\", \"d\": \"$$HOME `x` 100%% \\\\\"}" "it' in command
    assert r'''Environment="ODD=a'b \"c\" $d %%h"''' in said


def test_secrets_are_asked_for_in_a_file() -> None:
    said = lines(plan(), "prefill-0")
    assert "# must set: HF_TOKEN" in said
    assert "EnvironmentFile=%E/dynctl-p.env" in said
    assert "***" not in "\n".join(said)


def test_a_node_has_its_own_units() -> None:
    assert "dynctl-p-frontend.service" not in units(two_nodes("b"))
    said = lines(two_nodes("b"), "decode-0.1")
    assert any("decode-0.${EPOCH}" in line for line in said if line.startswith("ExecStart="))
    assert "# must set: HF_TOKEN, VLLM_API_KEY, EPOCH" in said
