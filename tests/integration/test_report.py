"""The support bundle: everything that helps, of any run, and not one secret."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

from tests.integration.run_harness import Home

PLANTED = {
    "ambient": "planted-ambient-A1/b+c=",
    "role": "planted-role-B2",
    "key": "planted-client-key-C3",
    "log": "planted-log-D4",
    "bearer": "planted-bearer-E5",
    "topology": "planted-topology-F6",
}


def unpacked(path: Path) -> dict[str, str]:
    """Files of a bundle by name within it."""
    with tarfile.open(path) as bundle:
        found = {}
        for member in bundle.getmembers():
            file = bundle.extractfile(member)
            assert file
            found[member.name.partition("/")[2]] = file.read().decode()
    return found


def plant(home: Home) -> dict[str, object]:
    """Secrets in every place that a report looks at; the topology's changes."""
    keys = home.dir / "work" / "keys"
    keys.write_text(PLANTED["key"] + "\n")
    keys.chmod(0o600)
    home.env["WANDB_API_KEY"] = PLANTED["ambient"]
    return {
        "frontend": {"api_keys_file": str(keys)},
        "roles": {"decode": {"env": {"MY_SECRET": PLANTED["role"]}}},
        "x-notes": {"hub_token": PLANTED["topology"]},
    }


def test_no_secret_is_in_the_bundle_of_a_running_or_stopped_run(home: Home) -> None:
    home.up(plant(home))
    for name in ("decode-0.log", "prefill-0.log", "supervisor.log"):
        with (home.run_dir / "logs" / name).open("a") as log:
            log.write(f"args: --api-key {PLANTED['log']} and Authorization: Bearer {PLANTED['bearer']}\n")
            log.write(f"a library prints {PLANTED['ambient']} and {PLANTED['key']} and {PLANTED['role']}\n")
    token = (home.run_dir / "token").read_text()
    with (home.run_dir / "ucx" / "decode-0.log").open("a") as log:
        log.write(f"UCX_SOMETHING=x {token}\n")
    assert PLANTED["role"] in (home.run_dir / "topology.json").read_text(), "there is something to hide"
    running = home.run("report", home.name, "-o", home.dir / "work" / "running.tar.gz")
    assert home.run("down", home.name).code == 0
    del home.env["WANDB_API_KEY"]
    stopped = home.run("report", home.name)
    for done, state in ((running, "ready"), (stopped, "stopped")):
        assert done.code == 0, done.err
        path = home.dir / "work" / done.out.strip()
        assert path.stat().st_mode & 0o077 == 0
        files = unpacked(path)
        assert {
            *("versions.json", "status.json", "plan.json", "run.json", "topology.json", "hardware.json"),
            *("check-rdma.json", "events.jsonl", "missing.json", "logs/decode-0.log", "logs/supervisor.log"),
            *("logs/frontend.log", "ucx/decode-0.log", "README"),
        } <= set(files)
        assert all(name in done.err for name in files), "stderr lists what it holds"
        assert json.loads(files["missing.json"]) == {}
        status = json.loads(files["status.json"])
        assert (status["name"], status["state"]) == (home.name, state)
        versions = json.loads(files["versions.json"])
        assert versions["vllm"]
        assert versions["nixl"]
        assert versions["ucx"]
        assert "is ready" in files["events.jsonl"]
        assert "a library prints" in files["logs/decode-0.log"]
        hidden = dict(PLANTED, token=token)
        if state == "stopped":
            del hidden["ambient"]  # nothing tells any more that this was one
        for name, text in files.items():
            for what, secret in hidden.items():
                assert secret not in text, (what, name)


def test_a_failed_run_and_a_damaged_one_have_a_bundle_too(home: Home) -> None:
    home.control(decode={"die_at_phase": "config", "die_message": "RuntimeError: no hope"})
    assert home.run("up", "-d", home.topology()).code == 1
    (home.run_dir / "plan.json").write_text("{")
    done = home.run("report", "-o", "failed.tar.gz")
    assert done.code == 0, done.err
    files = unpacked(home.dir / "work" / "failed.tar.gz")
    assert "no hope" in files["logs/decode-0.log"]
    assert "died" in files["events.jsonl"]
    assert "plan.json" in json.loads(files["missing.json"])
    assert "plan.json" not in files


def test_a_machine_without_a_run_and_a_place_that_can_t_be_written(home: Home) -> None:
    assert home.run("report", "-o", "no-such-folder/x.tar.gz").code == 2
    assert home.run("report", "nobody").code == 5
    done = home.run("report")
    assert (done.code, done.out.startswith("dynctl-report-machine-")) == (0, True)
    assert "hardware.json" in unpacked(home.dir / "work" / done.out.strip())
