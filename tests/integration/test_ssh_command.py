"""The remote command of `up --ssh`, read by every login shell that is here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from dynctl.ssh.route import NOT_FOUND_CODE, remote_command

SHELLS = [shell for shell in ("sh", "bash", "dash", "zsh", "fish", "csh", "tcsh") if shutil.which(shell)]


def program(directory: Path, name: str, says: str) -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\necho {says} "$@"\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("shell", SHELLS)
def test_the_first_dynctl_that_is_there_runs_in_any_login_shell(shell: str, tmp_path: Path) -> None:
    odd = tmp_path / 'it\'s $HOME; "here" && `x`'
    env = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path)}

    def run(command: str) -> tuple[int, str]:
        done = subprocess.run(
            [shutil.which(shell) or shell, "-c", command], env=env, capture_output=True, text=True, check=False
        )
        return done.returncode, (done.stdout or done.stderr).strip()

    code, said = run(remote_command(str(odd / "dynctl")))
    assert code == NOT_FOUND_CODE
    assert said.startswith("dynctl is not there: PATH=")
    program(tmp_path, ".local/bin/dynctl", "user")
    assert run(remote_command(str(odd / "dynctl"))) == (0, "user _node")
    program(tmp_path, "bin/dynctl", "path")
    assert run(remote_command(str(odd / "dynctl"))) == (0, "path _node")
    program(odd, "dynctl", "same")
    assert run(remote_command(str(odd / "dynctl"))) == (0, "same _node")
    assert run(remote_command(str(odd / "dynctl"), str(program(odd, "stated", "stated")))) == (0, "stated _node")
    assert run(remote_command(str(odd / "dynctl"), "/no/such"))[0] == NOT_FOUND_CODE
