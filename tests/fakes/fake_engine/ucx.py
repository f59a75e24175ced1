"""UCX's log lines, word for word as UCX 1.23 writes them: lanes of an endpoint, and tables of the protocols chosen.

UCX speaks of a configuration once per process. At start the worker connects to itself (cfg#0). The first remote engine
brings cfg#1 with its control messages' table; the first READ from it brings the table that tells of the KV path. A
second remote engine of the same kind brings no line at all.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
import uuid
from pathlib import Path

import msgspec


class UcxRefusedError(Exception):
    """UCX cannot do what was asked of it; the message is what the engine then fails with."""


class Route(msgspec.Struct, frozen=True):
    """How one transport class shows in the log: its lanes, then a table row's description and config."""

    where: str
    lanes: str
    description: str
    config: str


_PATHS = {
    "cma": Route(
        "intra-node", "rma_am(tcp/lo)  amo_am(tcp/lo)  am(tcp/lo cma/memory)  ka(tcp/lo)", "zero-copy", "cma/memory"
    ),
    "tcp": Route(
        "intra-node", "rma_am(tcp/lo)  amo_am(tcp/lo)  am(tcp/lo)  ka(tcp/lo)", "software emulation", "tcp/lo"
    ),
    "rdma": Route(
        "inter-node",
        "rma(rc_mlx5/mlx5_0:1)  amo(rc_mlx5/mlx5_0:1)  am(rc_mlx5/mlx5_0:1)  ka(ud_mlx5/mlx5_0:1)",
        "zero-copy",
        "rc_mlx5/mlx5_0:1",
    ),
    "nvlink": Route(
        "intra-node", "rma(cuda_ipc/cuda)  rma_am(tcp/lo)  am(tcp/lo)  ka(tcp/lo)", "zero-copy", "cuda_ipc/cuda"
    ),
}
_RDMA = {"rc", "rc_v", "rc_x", "ud", "dc", "ib", "rc_mlx5", "dc_mlx5"}
_HERE = "cma, mm, posix, self, shm, sm, sysv, tcp"


class UcxLog:
    """Writes what UCX would, where UCX_LOG_FILE says, for the worker process `pid`."""

    def __init__(self, pid: int, forced: str | None = None) -> None:
        self._pid = pid
        self._agent = str(uuid.uuid4())[:31]
        self._host = socket.gethostname()
        self._transports = {t for t in os.environ.get("UCX_TLS", "").split(",") if t}
        self._forced = forced
        self._known: set[str] = set()
        self._lanes = os.environ.get("UCX_LOG_LEVEL", "warn").lower() in ("info", "debug", "trace", "data", "func")
        self._tables = os.environ.get("UCX_PROTO_INFO", "n").lower() not in ("n", "no", "off", "0", "")

    def start(self) -> None:
        """The worker's connections to itself. Raises UcxRefusedError where UCX_TLS leaves nothing to use."""
        self._refuse_missing_transports()
        settings = " ".join(f"{k}={v}" for k, v in os.environ.items() if k.startswith("UCX_"))
        if self._lanes:
            self._line("    ucp_context.c:2753 UCX  INFO  Version 1.23.0 (loaded from libucp.so.0)")
            self._line(f"         parser.c:2587 UCX  INFO  UCX_* env variables: {settings}")
        here = _PATHS["tcp" if self._only_tcp() else "cma"]
        for where in ("self", "intra-node", "intra-node", "intra-node", "intra-node"):
            self._config(where, 0, here, thread=0)
            self._put_table(where, 0, here, thread=0)
        self._put_table("self", 0, here, thread=0)

    def connect(self) -> None:
        """First words with a remote engine: the control path."""
        path = self._path()
        if "connect" in self._known:
            return
        self._known.add("connect")
        self._config(path.where, 1, path, thread=1)
        self._put_table(path.where, 1, path, thread=1)

    def read(self) -> None:
        """A KV READ. Raises UcxRefusedError where emulation is off and nothing else is left."""
        path = self._path()
        emulation_off = os.environ.get("UCX_PROTO_EMULATION_ENABLE", "y").lower() in ("n", "no", "0", "off")
        if emulation_off and path.description == "software emulation":
            self._line("        rma_send.c:512  UCX  ERROR No zero-copy protocol found for get into host from host")
            raise UcxRefusedError("transfer_setup_failed")
        if "read" in self._known:
            return
        self._known.add("read")
        memory = "cuda memory from cuda" if path.config.startswith(("cuda", "rc_")) else "host memory from host"
        self._table(f"{path.where} cfg#1", f"remote memory read by ucp_get*(multi) into {memory}", path, thread=0)

    def _path(self) -> Route:
        return _PATHS[self._forced or ("tcp" if self._only_tcp() else "cma")]

    def _only_tcp(self) -> bool:
        return self._transports == {"tcp"}

    def _refuse_missing_transports(self) -> None:
        missing = sorted(self._transports & _RDMA) if self._forced != "rdma" else []
        for name in missing:
            self._line(
                f"    ucp_context.c:1212 UCX  WARN  transport '{name}' is not available, "
                f"please use one or more of: {_HERE}"
            )
        if missing and self._transports <= _RDMA:
            asked = ",".join(missing)
            self._line(f"    ucp_context.c:1466 UCX  ERROR no usable transports/devices (asked {asked} on network:lo)")
            raise UcxRefusedError("NIXL_ERR_BACKEND")

    def _config(self, where: str, number: int, path: Route, thread: int) -> None:
        if self._lanes:
            self._line(
                f"     ucp_worker.c:1997 UCX  INFO    {self._agent} {where} cfg#{number} {path.lanes}", thread=thread
            )

    def _put_table(self, where: str, number: int, path: Route, thread: int) -> None:
        kind = "ucp_put*" if path.description == "zero-copy" else "ucp_put*(fast-completion)"
        self._table(
            f"{where} cfg#{number}", f"remote memory write by {kind} from host memory to host", path, thread=thread
        )

    def _table(self, where: str, what: str, path: Route, thread: int) -> None:
        if not self._tables:
            return
        description = max(len(path.description), len("Description"))
        width = max(len(what), len(f"{self._agent} {where}"))
        config = width - description - len("0..inf") - 6
        rule = f"+{'-' * 8}+{'-' * (description + 2)}+{'-' * (config + 2)}+"
        rows = [
            rule,
            f"| {f'{self._agent} {where}':<{width}} |",
            f"| {what:<{width}} |",
            rule,
            f"| Range  | {'Description':<{description}} | {'Config':^{config}} |",
            rule,
            f"| 0..inf | {path.description:<{description}} | {path.config:<{config}} |",
            rule,
        ]
        now = time.time()
        for row in rows:
            self._line(f"  {row}", now, thread)

    def _line(self, text: str, now: float | None = None, thread: int = 0) -> None:
        line = f"[{now or time.time():.6f}] [{self._host}:{self._pid:<5}:{thread}] {text}\n".encode()
        target = os.environ.get("UCX_LOG_FILE", "")
        if target in ("", "stdout", "stderr"):
            with contextlib.suppress(OSError):  # UCX does not look whether its line could be written
                (sys.stderr if target == "stderr" else sys.stdout).flush()
                os.write(2 if target == "stderr" else 1, line)
            return
        file = Path(target.replace("%p", str(self._pid)).replace("%h", self._host))
        with file.open("ab") as out:
            out.write(line)
