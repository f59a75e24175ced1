"""A lock of two packages, as text: for the Python that runs the tests, and for one that nobody has."""

from __future__ import annotations

from dynctl.engines.environment.interpreters import running_python

OWN = running_python()
LOCK = f"""# about it
# python: {OWN} 3.99
# download-bytes x86_64: 120

aa==1.0 ; python_version == '3.11' \\
    --hash=sha256:11 \\
    --hash=sha256:22
torch==2.0+cpu
zz==2.0 \\
    --hash=sha256:33
"""
