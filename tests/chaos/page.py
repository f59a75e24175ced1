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
- *detection*, of a death: from the end of the first of the processes without which a worker can't serve (server, engine
  core, worker), told to the test by a pidfd, to the first event that says so; 0 where the event came before the test
  heard of any end. Of anything else: from the fault. *recovery*: from the fault until every process is ready.
- Crash on a request: the fake engine exits; the real engine's core dies by SIGSEGV as the request arrives. Hangs after
  ready: no token, while `/health` answers. 10x slower: each token, or each step of a real engine's core; the processes
  of dynctl are stopped for 90 of every 100 ms. Garbage: whatever a server is asked, it answers no HTTP.
- Played in one go in 65 minutes (`make chaos`, and the last two sections after it), on a virtual machine with two
  cores, beside other work of lower priority. A real worker's restart took about a minute there.
- SIGTERM of vLLM: an engine core waits for its worker for 5 s and only then ends; the core of a server ends
  about half a second after the signal, before the server does. Both are noticed as the first of them ends.
- SIGKILL in `up` with real engines: in that one go nothing was left after 10 moments of `up` killed, but segments and
  semaphores in 6 of 20 where its supervisor was: engines that were starting had made them while they were being ended.
  Since then that is looked at until they are gone, and what has to be killed is frozen first; the rows were played
  again.

Not played, since nothing of that kind can happen, or another row is the same:

- An engine core has no port and no start of its own; how it hangs or is slow is in its worker's rows.
- Frontend and supervisor: a crash on a request is SIGKILL under load, a hang after ready is SIGSTOP, and what answers
  garbage in the frontend's place is another process: `port stolen`. The supervisor has no port. Its `up` never hangs on
  it: `supervisor hangs in start`.
- All at once: signals only.
- With real engines: a hang in restart (it ends by `ready.stall`, after minutes), both prefill workers (there is one),
  writes that fail at their file's end (no engine starts so), and what happens before an engine has started.
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
