"""Ports that other runs of this host have: by their files, and by what is alive."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from dynctl.environ import RUN_ID_VARIABLE
from dynctl.preflight.others import planned_by, planned_by_others
from dynctl.store.run import SPAWNED_FILE, RunStore
from tests.unit.plan.machines import made

pytestmark = pytest.mark.usefixtures("places")


def test_a_run_without_a_supervisor_has_its_ports_while_anything_of_it_lives() -> None:
    plan, store = made(), RunStore(made().name)
    record = store.create(plan, "1")
    ports = {port for process in plan.processes for port in process.ports.values()}
    assert planned_by(store.name) == {}, "nothing was started"
    (store.dir / SPAWNED_FILE).touch()
    assert planned_by(store.name) == {}, "all of it has ended"
    process = subprocess.Popen(["sleep", "60"], env={**os.environ, RUN_ID_VARIABLE: record.run_id})
    try:
        deadline = time.monotonic() + 20
        while not planned_by(store.name):  # until it has executed
            assert time.monotonic() < deadline
        assert planned_by_others("another").keys() == ports
        assert planned_by_others(store.name) == {}
        (store.dir / "plan.json").write_text("{")
        assert planned_by_others("another") == {}, "what can't be read is in nobody's way"
    finally:
        process.kill()
        process.wait()
