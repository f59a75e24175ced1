"""`python -m tests.chaos.page TITLE=FILE.json[,FILE.json] ... > docs/faults.md`: the page from what was seen."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.chaos import table

HEAD = """# Faults

What `make chaos` does to a deployment under a steady load of four streams, what must hold, and what was seen. Written
by `python -m tests.chaos.page` from what `--json` keeps; each row is one play.

- Fake engines: two prefill and two decode workers, a canary each second. Real ones (vLLM on CPU, NIXL): one prefill
  and two decode workers, the default canary of 5 s; each request has a cache salt of its own, so that its KV cache is
  handed over, and its tokens are held against those that the undisturbed deployment gave.
- Each answer of the load is known beforehand: a 200 with another token, a stream that ends early as if it were whole,
  and nothing by the client's deadline are faults of dynctl, whatever the row expects.
- *failed cleanly*: an error answer, an SSE error, a refused or a broken connection: the client knows.
- *detection*: from the fault, or from the end of the process where that is said, to the first event that says so.
  *recovery*: from the fault until every process is ready.
- Crash on a request: the fake engine exits; the real engine's core dies by SIGSEGV as the request arrives.
- A row that is not as expected stands here as it was seen. Not played with real engines: both decode workers at once,
  SIGKILL of all, engines that hang, are slow or answer garbage, full disks, lost files.
- Played on a virtual machine with two cores, whose load average was 7 to 22 by other work at the same time, with the
  deployment at a raised priority (nice -10 for the first two rows with real engines, -15 for the others; the loops of
  SIGKILLs with fake engines without). A real worker's restart took one and a half to three minutes there.
- With real engines a death was noticed 2 to 490 ms after it, and the end of an engine core by SIGTERM after 5 s, by
  its silence; why the watch on that child did not tell at once was not established.
- SIGKILL of `up` with real engines: no process was left in any of ten moments; in six, shared memory, semaphores or
  sockets of the engines were.
"""


def main() -> None:
    """Prints the page."""
    print(HEAD)
    for argument in sys.argv[1:]:
        title, _, files = argument.partition("=")
        rows = [row for file in files.split(",") for row in json.loads(Path(file).read_text())["rows"]]
        rows = [{**row, "engine": None} for row in rows]  # the section says it
        missed = sum(not row["ok"] for row in rows)
        print(f"## {title}\n\n{len(rows)} rows, {missed} not as expected.\n\n{table.markdown(rows)}\n")


if __name__ == "__main__":
    main()
