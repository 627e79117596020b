from __future__ import annotations

import io
import threading

import pytest

from pipelines import terminal
from pipelines.progress import LINE_SECONDS, Lines, LineStage, Live, Silent, per_second, show
from pipelines.terminal import StderrConsole, plain


@pytest.fixture
def console() -> StderrConsole:
    made = StderrConsole()
    made.file = io.StringIO()
    return made


def said(console: StderrConsole) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_stage_in_lines_says_its_start_and_its_end(console: StderrConsole) -> None:
    with Lines(console).stage("examine: labels", 3000, shards=2) as stage:
        stage.advance(1000)
        stage.advance(2000)
    first, last = said(console)
    assert first == "examine: labels: started, 3,000 rows"
    assert last.startswith("examine: labels: done, 3,000 rows in ")
    assert last.endswith(" rows/s)")


def test_lines_in_between_are_ten_seconds_apart(
    console: StderrConsole, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("pipelines.progress.time.monotonic", lambda: now[0])
    with Lines(console).stage("ingest", 400, shards=4) as stage:
        for seconds in (1.0, LINE_SECONDS, 1.0, 1.0):
            now[0] += seconds
            stage.advance(100)
    assert said(console)[1:-1] == [
        "ingest: 200 of 400 rows, shard 2 of 4, 18 rows/s, about 11 s left"
    ]


def test_an_error_ends_a_stage_without_saying_done(console: StderrConsole) -> None:
    with pytest.raises(OSError, match="full"), Lines(console).stage("publish"):
        raise OSError("full")
    assert said(console)[-1].startswith("publish: stopped after ")


def test_stages_count_right_from_many_threads(console: StderrConsole) -> None:
    stage = LineStage(console, "decide", None, None)
    with stage:

        def work() -> None:
            for _ in range(2000):
                stage.advance(1)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert stage.rows == 8000


def test_progress_is_lines_off_a_terminal_and_silent_when_quiet(console: StderrConsole) -> None:
    with show(console) as shown:
        assert isinstance(shown, Lines)
    with show(console, quiet=True) as shown:
        assert isinstance(shown, Silent)
        with shown.stage("ingest", 10) as stage:
            stage.advance(10)
        shown.note("nothing")
    assert said(console) == []


def test_bars_on_a_terminal_name_stage_rows_shards_and_speed() -> None:
    console = StderrConsole()
    console.file = io.StringIO()
    console._force_terminal = True
    console.width = 140
    with show(console) as shown:
        assert isinstance(shown, Live)
        with shown.stage("examine: outliers", 2000, shards=2) as stage:
            stage.advance(1000)
            stage.advance(1000)
        with shown.stage("report"):
            pass
        shown.note("roles: label = y")
    text = "\n".join(said(console))
    for word in ("examine: outliers", "2,000 rows", "shard 2/2", "rows/s", "roles: label = y"):
        assert word in text


def test_names_from_data_cannot_paint_the_terminal(console: StderrConsole) -> None:
    assert plain("a\x1b[2Jb\nc\u202ed") == "a\\x1b[2Jb\\nc\\u202ed"
    Lines(console).note("column '\x1b[31m[bold]é'")
    assert said(console) == ["column '\\x1b[31m[bold]é'"]


def test_a_closed_pipe_silences_and_does_not_end_the_run(
    console: StderrConsole, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    silenced: list[int] = []
    monkeypatch.setattr(terminal, "silence", silenced.append)
    console.file = Closed()
    with Lines(console).stage("ingest", 10) as stage:
        stage.advance(10)
    assert console.quiet
    assert silenced


def test_speed_is_finite_however_short() -> None:
    assert per_second(10, 0.0) == "10,000 rows/s"
