"""The memory policy around a start: in force within, gone afterwards, and no reason to fail where it is refused."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from dynctl.errors import HostError
from dynctl.runtime import mempolicy
from dynctl.runtime.mempolicy import DEFAULT, PREFERRED, PREFERRED_MANY, preferring


class Kernel:
    """Keeps a policy as the kernel would; `refuses(mode)` is the error number for a mode."""

    def __init__(self, refuses: Callable[[int], int] = lambda _mode: 0) -> None:
        self.policy = (3, 0b11)  # what the supervisor was started with: interleaved
        self.refuses = refuses
        self.asked: list[tuple[int, int]] = []

    def get(self) -> tuple[int, int]:
        return self.policy

    def set(self, mode: int, nodes: int) -> None:
        if number := self.refuses(mode):
            raise OSError(number, os.strerror(number))
        self.policy = (mode, nodes)
        self.asked.append(self.policy)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(mempolicy, "get_policy", made.get)
    monkeypatch.setattr(mempolicy, "set_policy", made.set)
    return made


@pytest.mark.parametrize(("nodes", "policy"), [
    ((1,), (PREFERRED, 0b10)), ((0, 2), (PREFERRED_MANY, 0b101)), ((70,), (PREFERRED, 1 << 70)),
])  # fmt: skip
def test_a_policy_holds_within_and_not_afterwards(kernel: Kernel, nodes: tuple[int, ...], policy: object) -> None:
    with preferring(nodes) as refused:
        assert (refused, kernel.policy) == (None, policy)
    assert kernel.policy == (3, 0b11)


def test_a_failed_start_leaves_no_policy_behind(kernel: Kernel) -> None:
    with pytest.raises(HostError), preferring((1,)):
        raise HostError("can't execute")
    assert kernel.policy == (3, 0b11)


def test_no_nodes_no_policy(kernel: Kernel) -> None:
    with preferring(()) as refused:
        assert refused is None
    assert kernel.asked == []


def test_an_old_kernel_prefers_the_first_of_several(kernel: Kernel) -> None:
    kernel.refuses = lambda mode: errno.EINVAL if mode == PREFERRED_MANY else 0
    with preferring((2, 3)) as refused:
        assert (refused, kernel.policy) == (None, (PREFERRED, 0b100))


@pytest.mark.parametrize(("number", "words"), [
    (errno.EPERM, "a memory policy (Operation not permitted), as containers without CAP_SYS_NICE do"),
    (errno.ENOSYS, "a memory policy (Function not implemented): it has no NUMA support"),
    (errno.EINVAL, "to prefer NUMA node 1: it has no memory, or is not allowed here (cpuset)"),
])  # fmt: skip
def test_a_refusal_is_words_not_an_error(kernel: Kernel, number: int, words: str) -> None:
    kernel.refuses = lambda _mode: number
    with preferring((1,)) as refused:
        assert refused == f"the kernel refuses {words}"
    assert kernel.policy == (3, 0b11)


def test_a_machine_whose_calls_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mempolicy.platform, "machine", lambda: "vax")
    with preferring((0,)) as refused:
        assert refused is not None


def test_the_kernel_itself() -> None:
    """Where it refuses, that is what is said; else a child has the policy and this thread does not keep it."""
    code = "print(open('/proc/self/numa_maps').readline().split()[1])"
    with preferring((0,)) as refused:
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if refused:
        assert "the kernel refuses" in refused
        return
    assert mempolicy.get_policy()[0] == DEFAULT
    assert child.stdout == "prefer:0\n" or "numa_maps" in child.stderr
