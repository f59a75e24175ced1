"""Fixtures that every level of tests may use."""

from __future__ import annotations

from tests.fakes.fixtures import fake_model, fake_python

__all__ = ["fake_model", "fake_python"]
