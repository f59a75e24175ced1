"""vLLM's log lines worth knowing: which start-up phase each opens, and which ones explain a death."""

from __future__ import annotations

PHASES: tuple[tuple[str, str], ...] = (
    (r"Initializing a V1 LLM engine", "initializing engine"),
    (r"Starting to load model", "loading weights"),
    (r"Loading weights took|Model loading took", "preparing engine"),
    (r"torch\.compile took|Start compiling|Compiling a graph", "compiling"),
    (r"Available KV cache memory|KV cache size", "allocating KV cache"),
    (r"Capturing CUDA graph|Graph capturing", "capturing graphs"),
    (r"Registering KV_Caches", "registering KV cache"),
    (r"init engine .* took", "starting server"),
    (r"Starting vLLM server on", "serving"),
)

CAUSES: tuple[tuple[str, str, str | None], ...] = (
    (
        r"(?i)address already in use",
        "a port it needs is in use",
        "find the holder with `ss -ltnp`; a left-over engine of another run is ended by `dynctl down`",
    ),
    (
        r"(?i)out ?of ?memory|can(?:no|')t allocate memory|exceeds? available memory|less than desired "
        r"GPU memory|No available memory for the cache blocks",
        "out of memory",
        "lower `gpu-memory-utilization` or `max-model-len` in args, raise tp, or free the device",
    ),
    (
        r"(?i)NIXL compatibility hash mismatch",
        "prefill and decode disagree (NIXL compatibility hash mismatch)",
        "give both roles the same model, dtype, block size, KV cache dtype and engine version",
    ),
    (
        r"NIXL is not available|No module named 'nixl|Cannot import NIXL|nixl.*not installed",
        "the engine's interpreter has no usable NIXL",
        "install nixl beside the engine, or let `make engine` build the environment",
    ),
    (
        r"(?i)transport '\w+' is not available|no usable transports|NIXL_ERR_BACKEND|no active messages transport",
        "UCX has no usable transport with these settings",
        "check transport.env (UCX_TLS, UCX_NET_DEVICES) against this machine's devices",
    ),
    (
        r"(?i)is not a local folder and is not a valid model identifier|Repository Not Found|RepositoryNotFoundError|"
        r"does not appear to have a file named config\.json|Invalid repository ID or local directory",
        "the model was not found",
        "check `model`; a gated model needs HF_TOKEN in the environment",
    ),
    (
        r"(?i)unrecognized arguments|error: argument",
        "the engine refused a flag",
        "check roles.*.args against this engine's version",
    ),
)
