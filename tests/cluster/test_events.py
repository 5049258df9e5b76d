"""One line per event, found again behind whatever Ray puts around it."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from raylora.cluster import events
from raylora.cluster.events import (
    ErrorEvent,
    EvaluationEvent,
    Event,
    RestartEvent,
    ResultEvent,
    StageEvent,
    StepEvent,
)

STEP = StepEvent(
    step=3,
    total_steps=10,
    loss=0.5,
    learning_rate=1e-3,
    grad_norm=1.25,
    tokens_per_second=100.0,
    supervised_tokens_per_second=40.0,
    memory_bytes=1 << 30,
    eta_seconds=7.0,
)
ALL: list[Event] = [
    StageEvent("base"),
    StageEvent("evaluate", "150 rows @raylora {}"),
    STEP,
    RestartEvent(attempt=1, resumed_step=25),
    EvaluationEvent("base", 150, {"exact_match": 0.1}),
    ResultEvent("20260101-120000-a1b2c3", "abc", "home@1", ["champion"], "/out/adapter"),
    ResultEvent("20260101-120000-a1b2c3", "abc", None, [], "/out/adapter"),
    ErrorEvent("rows.jsonl:3: not JSON\nand more", None),
]


@pytest.mark.parametrize("event", ALL, ids=lambda e: type(e).__name__)
def test_emitted_line_is_parsed_back(event: Event, capsys: pytest.CaptureFixture[str]) -> None:
    events.emit(event)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert events.parse(out) == event


@pytest.mark.parametrize("event", ALL, ids=lambda e: type(e).__name__)
def test_worker_prefix_and_colour_codes_do_not_hide_an_event(
    event: Event, capsys: pytest.CaptureFixture[str]
) -> None:
    events.emit(event)
    line = capsys.readouterr().out.rstrip("\n")
    prefixed = f"\x1b[36m(RayTrainWorker pid=71, ip=127.0.0.2)\x1b[0m {line}\x1b[32m [x2]\x1b[0m"
    assert events.parse(prefixed) == event


def test_a_replaced_print_has_no_part_in_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.print", lambda *_, **__: pytest.fail("Ray Train's print"))
    events.emit(STEP)
    assert events.parse(capsys.readouterr().out) == STEP


@pytest.mark.parametrize(
    "line",
    [
        "",
        "loss 0.5",
        "@raylora",
        "@raylora {",
        "@raylora 7",
        "@raylora [1]",
        '@raylora {"event": "nonsense"}',
        '@raylora {"event": "restart", "attempt": 1}',
        '@raylora {"event": {}}',
        '@raylora {"event": "step", "step": 1, "total_steps": 2, "loss": "high"}',
    ],
)
def test_other_lines_are_no_events(line: str) -> None:
    assert events.parse(line) is None


def test_a_log_is_over_with_a_result_or_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    events.emit(STEP)
    step = capsys.readouterr().out
    events.emit(ErrorEvent("it failed", None))
    error = capsys.readouterr().out
    assert not events.is_over(step + "a result\n")
    assert events.is_over(step + error + "Exception ignored\n")


def test_a_newer_programs_extra_field_is_ignored() -> None:
    line = '@raylora {"event": "restart", "attempt": 1, "resumed_step": 2, "why": "oom"}'
    assert events.parse(line) == RestartEvent(attempt=1, resumed_step=2)


def test_nan_travels_as_strict_json(capsys: pytest.CaptureFixture[str]) -> None:
    events.emit(EvaluationEvent("base", 1, {"loss": math.nan}))
    line = capsys.readouterr().out

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads(line.removeprefix(events.MARKER), parse_constant=refuse)
    event = events.parse(line)
    assert isinstance(event, EvaluationEvent)
    assert math.isnan(event.metrics["loss"])


def test_events_need_the_standard_library_only() -> None:
    source = Path(events.__file__)
    script = (
        "import runpy, sys; runpy.run_path(sys.argv[1]);"
        "print([m for m in ('ray', 'torch', 'pydantic', 'raylora') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(source)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
