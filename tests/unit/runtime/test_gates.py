"""Gates of a start, where a supervisor must notice what else happens meanwhile."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import httpx

from dynctl.runtime.gates import await_health


async def test_the_process_table_is_not_read_in_the_loop() -> None:
    read_in: list[int] = []

    def processes() -> list[object]:
        read_in.append(threading.get_ident())
        listening = SimpleNamespace(status="LISTEN", laddr=SimpleNamespace(port=1))
        return [SimpleNamespace(net_connections=lambda kind: [listening])]

    probes = SimpleNamespace(url="http://worker:1", health="/health")
    process = SimpleNamespace(spec=SimpleNamespace(probes=probes, ports={"http": 1}), processes=processes)
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200))) as http:
        await await_health(process, http)  # type: ignore[arg-type]
    assert read_in
    assert read_in[0] != threading.get_ident()
