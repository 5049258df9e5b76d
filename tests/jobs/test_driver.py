"""How a job's program ends: its exit code, and an error among its events."""

import pytest

from raylora.cluster import events
from raylora.cluster.events import ErrorEvent
from raylora.errors import ExitCode, InvalidData
from raylora.jobs.driver import Given, drive


def test_an_error_is_told_with_the_file_as_its_user_knows_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def act(given: Given) -> None:
        assert given.run_id == "RUN"
        file = "/tmp/ray/session/working_dir/files/0123456789abcdef-rows.csv"
        raise InvalidData("145 tokens", file=file, line=206, hint="drop the row")

    assert drive("program", act, ["spec.yaml", "--run-id", "RUN"]) is ExitCode.DATA
    said = events.parse(capsys.readouterr().out)
    assert said == ErrorEvent("rows.csv:206: 145 tokens", "drop the row")


def test_a_job_that_is_stopped_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    def act(given: Given) -> None:
        raise KeyboardInterrupt

    assert drive("program", act, ["spec.yaml"]) is ExitCode.INTERRUPTED
    assert "stopped" in capsys.readouterr().err
