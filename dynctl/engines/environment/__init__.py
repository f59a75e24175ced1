"""The engine's own Python environment: vLLM and NIXL pin half the world, so dynctl keeps them out of its own."""

from dynctl.engines.environment.build import build_environment, default_python, recorded_versions

__all__ = ["build_environment", "default_python", "recorded_versions"]
