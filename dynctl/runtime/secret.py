"""What is made of the secret that the nodes of a run share: the key of the engines' HTTP."""

from __future__ import annotations

import hashlib
import hmac
import os

import msgspec

from dynctl.engines.spec import ProcessSpec
from dynctl.engines.vllm import INSIDE
from dynctl.frontend.keys import ENGINE_KEY_VARIABLE
from dynctl.store.run import RunStore, write_private

ENGINE_VARIABLE = "VLLM_API_KEY"


def engine_key(secret: str, run: str) -> str:
    """What engines ask for in `Authorization`: made of the secret, which it does not give away."""
    return hmac.digest(secret.encode(), b"engine http " + run.encode(), hashlib.sha256).hex()


def guarded(specs: tuple[ProcessSpec, ...], key: str, store: RunStore) -> tuple[ProcessSpec, ...]:
    """The processes with the key: in an engine's environment, for the frontend in a file that only its owner reads."""
    file = store.dir / "engine-key"
    write_private(file, key.encode())
    more = {spec.id: {ENGINE_VARIABLE: key, "PYTHONPATH": _python_path(spec)} for spec in specs}
    more["frontend"] = {ENGINE_KEY_VARIABLE: str(file)}
    return tuple(msgspec.structs.replace(spec, env={**spec.env, **more[spec.id]}) for spec in specs)


def _python_path(spec: ProcessSpec) -> str:
    """Where an engine finds what guards its HTTP, then what was there before."""
    before = spec.env.get("PYTHONPATH", os.environ.get("PYTHONPATH"))
    return os.pathsep.join((INSIDE, before)) if before else INSIDE
