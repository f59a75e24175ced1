"""Following a log: as it grows, in pieces, through rotation, with UCX's lines parted from the engine's."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynctl.engines.spec import LogCause, LogPhase, ProcessSpec
from dynctl.runtime.tail import KEPT_LINES, LogTail
from dynctl.store.follow import LONGEST_LINE_BYTES

UCX = "[1795453442.763892] [vm:8160 :0]     ucp_context.c:2753 UCX  INFO  Version 1.23.0 (loaded from /opt/libucp.so)"
SPEC = ProcessSpec(
    id="decode-0",
    role="decode",
    argv=("engine",),
    log_phases=(LogPhase("load", "loading"), LogPhase("compil", "compiling"), LogPhase("listen", "serving")),
    log_causes=(
        LogCause("address already in use", "a port is in use", "find its holder"),
        LogCause("no usable transports", "UCX has no transport"),
    ),
)


class Log:
    """A log file, its tail, and the phases that were announced."""

    def __init__(self, folder: Path, ucx: Path | None = None) -> None:
        self.path = folder / "decode-0.log"
        self.phases: list[str] = []
        self.tail = LogTail(SPEC, self.path, ucx, self.phases.append)

    def write(self, text: str | bytes) -> list[str]:
        """Appends, reads on, and returns the lines kept."""
        with self.path.open("ab") as file:
            file.write(text.encode() if isinstance(text, str) else text)
        self.tail.poll()
        return list(self.tail.lines)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_a_log_that_is_not_there_yet_has_nothing(log: Log) -> None:
    log.tail.poll()
    assert (list(log.tail.lines), log.tail.bytes_read) == ([], 0)


def test_only_what_is_new_is_read(log: Log) -> None:
    assert log.write("one\ntwo\n") == ["one", "two"]
    assert log.write("") == ["one", "two"]
    assert log.write("three\n") == ["one", "two", "three"]
    assert log.tail.bytes_read == len("one\ntwo\nthree\n")


def test_a_line_may_come_in_pieces(log: Log) -> None:
    assert log.write("load") == []
    assert log.phases == []
    assert log.write("ing the mo") == []
    assert log.write("del\nnext") == ["loading the model"]
    assert log.phases == ["loading"]
    assert log.write("\n") == ["loading the model", "next"]


def test_a_character_may_come_in_pieces(log: Log) -> None:
    whole = "zażółć\n".encode()
    log.write(whole[:3])
    assert log.write(whole[3:]) == ["zażółć"]


def test_odd_bytes_and_line_ends(log: Log) -> None:
    assert log.write(b"bad \xff byte\r\n\n   \nlast\n") == ["bad � byte", "last"]


def test_a_line_without_end_is_cut(log: Log) -> None:
    log.write("x" * (3 * LONGEST_LINE_BYTES))
    (line,) = log.write("\n")
    assert len(line) <= LONGEST_LINE_BYTES


def test_the_last_lines_are_kept(log: Log) -> None:
    lines = log.write("".join(f"{number}\n" for number in range(KEPT_LINES + 5)))
    assert (len(lines), lines[0], lines[-1]) == (KEPT_LINES, "5", str(KEPT_LINES + 4))


def test_phases_go_only_forward(log: Log) -> None:
    log.write("load\nload again\ncompiling\nload once more\nlistening\ncompiling\n")
    assert log.phases == ["loading", "compiling", "serving"]


def test_phases_may_be_passed_over(log: Log) -> None:
    log.write("listening\nloading\n")
    assert log.phases == ["serving"]


def test_the_first_cause_is_kept(log: Log) -> None:
    assert log.tail.cause is None
    log.write("OSError: address already in use\nno usable transports\n")
    assert log.tail.cause == SPEC.log_causes[0]


def test_rotation_copies_and_truncates(log: Log) -> None:
    log.write("before rotation, a long line\nhalf a li")
    log.path.write_bytes(b"")
    log.tail.poll()
    assert log.write("after\n") == ["before rotation, a long line", "after"]


def test_truncation_noticed_after_new_lines_came(log: Log) -> None:
    log.write("before rotation, a long line\nhalf")
    log.path.write_bytes(b"after\n")
    assert log.write("") == ["before rotation, a long line", "after"]
    assert log.tail.bytes_read == len("after\n")


def test_what_an_earlier_process_wrote_is_skipped(log: Log) -> None:
    log.path.write_text("address already in use\nloading\n")
    log.tail.skip_to_end()
    assert log.write("compiling\n") == ["compiling"]
    assert (log.phases, log.tail.cause) == (["compiling"], None)


def test_skipping_a_log_that_is_not_there(log: Log) -> None:
    log.tail.skip_to_end()
    assert log.write("one\n") == ["one"]


# UCX


def test_ucx_lines_go_into_a_file_of_their_own(tmp_path: Path) -> None:
    ucx = tmp_path / "ucx.log"
    log = Log(tmp_path, ucx)
    assert log.write(f"one\n{UCX}\ntwo\n") == ["one", "two"]
    assert ucx.read_text() == UCX + "\n"
    assert log.tail.ucx.version == "1.23.0"


def test_another_reader_goes_on_where_the_first_one_stopped(tmp_path: Path) -> None:
    ucx, later = tmp_path / "ucx.log", UCX.replace("1.23.0", "1.24.0")
    log = Log(tmp_path, ucx)
    log.write(f"one\n{UCX}\n")
    with log.path.open("a") as file:
        file.write(f"two\n{later}\n")
    tail = LogTail(SPEC, log.path, ucx, log.phases.append)
    tail.resume()
    assert ucx.read_text() == f"{UCX}\n{later}\n"
    assert list(tail.lines) == ["one", "two"]
    assert tail.ucx.version == "1.24.0"
    with log.path.open("a") as file:
        file.write(f"{UCX}\nthree\n")
    tail.poll()
    assert ucx.read_text() == f"{UCX}\n{later}\n{UCX}\n"
    assert tail.lines[-1] == "three"


def test_ucx_lines_count_for_causes_but_not_for_phases(tmp_path: Path) -> None:
    log = Log(tmp_path, tmp_path / "ucx.log")
    log.write("[1795453442.763892] [vm:8160 :0] ucp.c:1 UCX  ERROR no usable transports/devices while loading\n")
    assert (log.phases, log.tail.cause) == ([], SPEC.log_causes[1])


def test_a_full_disk_costs_the_copy_only(tmp_path: Path) -> None:
    log = Log(tmp_path, tmp_path / "no-such-folder" / "ucx.log")
    log.write(f"{UCX}\none\n")
    assert log.tail.ucx.version == "1.23.0"
    assert list(log.tail.lines) == ["one"]


def test_the_text_of_a_real_table_is_put_together(tmp_path: Path) -> None:
    from tests.unit.fabric.captures import REAL_CMA

    log = Log(tmp_path, tmp_path / "ucx.log")
    middle = len(REAL_CMA) // 2
    log.write(REAL_CMA[:middle])
    log.write(REAL_CMA[middle:])
    (table,) = log.tail.ucx.tables
    assert (table.operation, table.endpoint, table.rows[0].lanes) == ("get", "intra-node", ("cma/memory",))
    assert table.source.endswith("ucx.log")
