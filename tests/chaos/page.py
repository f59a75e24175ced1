"""`python -m tests.chaos.page TITLE=FILE.json ... > docs/faults.md`: the page of faults from what was seen."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.chaos import table

HEAD = """# Faults

What `make chaos` does to a deployment of two prefill and two decode workers under a steady load of four streams, what
must hold, and what was seen. Written by `python -m tests.chaos.page` from what `--json` keeps; each row is one play.

- Each answer of the load is known beforehand: a 200 with another token, a stream that ends early as if it were whole,
  and nothing by the client's deadline are faults of dynctl, whatever the row expects.
- *failed cleanly*: an error answer, an SSE error, a refused or a broken connection: the client knows.
- *detection*: from the fault to the first event that says so. *recovery*: from the fault until every process is ready.
- A row that is not as expected stands here as it was seen.
- Played on a virtual machine with two cores, whose load average was 10 to 25 by other work at the same time: there a
  process may wait a tenth of a second for its turn, and detection and recovery are what that machine allowed.
"""


def main() -> None:
    """Prints the page."""
    print(HEAD)
    for argument in sys.argv[1:]:
        title, _, file = argument.partition("=")
        rows = json.loads(Path(file).read_text())["rows"]
        missed = sum(not row["ok"] for row in rows)
        print(f"## {title}\n\n{len(rows)} rows, {missed} not as expected.\n\n{table.markdown(rows)}\n")


if __name__ == "__main__":
    main()
