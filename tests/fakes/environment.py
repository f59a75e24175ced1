"""A Python environment that looks like one with vLLM and NIXL in it, and runs the fake engine.

Its interpreter answers what a real engine environment answers: `python -m vllm.entrypoints.openai.api_server ...`
starts a server, `importlib.metadata` finds the versions, `import nixl` works. What it does not have is the gigabytes.
"""

from __future__ import annotations

import site
import sysconfig
import venv
from collections.abc import Mapping
from pathlib import Path

VERSIONS: Mapping[str, str] = {"vllm": "0.32.0", "nixl": "1.5.1", "torch": "2.13.0+cpu"}

_LAUNCHER = "from fake_engine.main import main\n\nif __name__ == '__main__':\n    main()\n"
_HEADLESS = {
    "cli/serve.py": "import sys\nfrom fake_engine.parts import run_headless as run\n\n\n"
    "def run_headless(args):\n    run(sys.argv[1:])\n",
    "launchers/cli_args.py": "def make_arg_parser(parser):\n    return parser\n",
}
"""What stands behind `vllm serve --headless`."""


def build_fake_environment(path: Path, versions: Mapping[str, str] = VERSIONS) -> Path:
    """Make the environment at `path` and return its interpreter.

    `versions` maps distribution names to versions. A distribution left out of it is not installed: no `vllm` means no
    launcher, no `nixl` means that `import nixl` fails.
    """
    venv.EnvBuilder(with_pip=False, symlinks=True).create(path)
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(path), "platbase": str(path)}))
    ours = Path(__file__).resolve().parent
    (packages / "fake_engine.pth").write_text(f"{ours}\n")
    # The fake engine is built on what the tests already have; its own site-packages come first on sys.path.
    (packages / "zz_test_environment.pth").write_text("".join(f"{p}\n" for p in site.getsitepackages()))
    for name, version in versions.items():
        _add_distribution(packages, name, version)
    if "vllm" in versions:
        _add_launcher(packages / "vllm", versions["vllm"])
    for module in ("nixl", "torch"):
        if module in versions:
            (packages / module).mkdir()
            (packages / module / "__init__.py").write_text(f"__version__ = {versions[module]!r}\n")
    return path / "bin" / "python"


def _add_distribution(packages: Path, name: str, version: str) -> None:
    info = packages / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "INSTALLER").write_text("tests\n")


def _add_launcher(package: Path, version: str) -> None:
    server = package / "entrypoints" / "openai"
    server.mkdir(parents=True)
    (package / "__init__.py").write_text(f"__version__ = {version!r}\n")
    (package / "entrypoints" / "__init__.py").touch()
    (server / "__init__.py").touch()
    (server / "api_server.py").write_text(_LAUNCHER)
    for name, text in _HEADLESS.items():
        module = package / "entrypoints" / name
        module.parent.mkdir()
        module.write_text(text)
    (package / "utils").mkdir()
    (package / "utils" / "argparse_utils.py").write_text(
        "import argparse\n\n\nclass FlexibleArgumentParser(argparse.ArgumentParser):\n"
        "    def parse_args(self):\n        return argparse.Namespace()\n"
    )
