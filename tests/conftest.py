"""Fixtures that every level of tests may use."""

from __future__ import annotations

import os

from hypothesis import settings

from tests.fakes.fixtures import fake_model, fake_python

__all__ = ["fake_model", "fake_python"]

# The same examples every time where a red run must be repeatable; new ones on a developer's machine.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
