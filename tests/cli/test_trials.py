import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.stored_sweep import BEST, ENDED_EARLY, SWEEP, store_sweep

from raylora.cli import trials
from raylora.cli.main import cli
from raylora.tracking.sweep_requests import Answer, CloneTrial, Request, answer, open_requests
from raylora.tracking.sweeps import get_sweep


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> str:
    """A sweep that runs: its best trial trains."""
    return store_sweep(tmp_path_factory.mktemp("trials"), empty_store, running=True)


@pytest.fixture
def outputs(uri: str) -> str:
    return str(Path(uri.removeprefix("sqlite:///")).parent)


Driver = Callable[[Answer], list[Request]]


@pytest.fixture
def driver(uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    """Answers the next request of the sweep; gives the list it will be in."""
    monkeypatch.setattr(trials, "LOOK_S", 0.02)
    sweep = get_sweep(uri, SWEEP).summary.mlflow_run_id
    over = threading.Event()
    threads: list[threading.Thread] = []

    def start(reply: Answer) -> list[Request]:
        seen: list[Request] = []

        def work() -> None:
            while not over.wait(0.02) and not seen:
                for asked in open_requests(uri, sweep):
                    seen.append(asked.request)
                    answer(uri, sweep, asked.id, reply)

        threads.append(threading.Thread(target=work))
        threads[-1].start()
        return seen

    yield start
    over.set()
    for thread in threads:
        thread.join()


def raylora(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def test_lists_trials_by_name(outputs: str) -> None:
    result = raylora("trials", "list", SWEEP, "--outputs", outputs)
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith("t0")]
    assert [row[0] for row in rows] == [f"t{number:02}" for number in range(1, 9)]
    assert rows[-1][:3] == [BEST, "running", "4"]
    told = json.loads(raylora("trials", "list", SWEEP, "--outputs", outputs, "-o", "json").stdout)
    assert told[0]["settings"] == {
        "lora.r": 4,
        "lora.lora_alpha": 8,
        "training.learning_rate": 1e-4,
    }
    assert told[0]["run_id"] == f"{SWEEP}-t01"


def test_a_stop_reaches_the_driver_and_its_answer_is_shown(outputs: str, driver: Driver) -> None:
    seen = driver(Answer(True, BEST))
    result = raylora("trials", "stop", SWEEP, BEST, "--outputs", outputs, "-o", "json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "sweep": SWEEP,
        "do": "stop",
        "trial": BEST,
        "answer": BEST,
    }
    assert [(request.do, request.trial) for request in seen] == [("stop", BEST)]


def test_a_clone_has_typed_values_and_names_the_new_trial(outputs: str, driver: Driver) -> None:
    seen = driver(Answer(True, "t09"))
    changes = ("lora.r=32", "training.learning_rate=2e-4", "training.lr_scheduler=cosine")
    options = [word for change in changes for word in ("--set", change)]
    command = ("trials", "clone", SWEEP, ENDED_EARLY, *options, "--warm", "--outputs", outputs)
    result = raylora(*command)
    assert result.exit_code == 0, result.output
    assert "t09" in result.stdout
    settings = {
        "lora.r": 32,
        "training.learning_rate": 2e-4,
        "training.lr_scheduler": "cosine",
    }
    assert seen == [CloneTrial(ENDED_EARLY, settings, warm=True)]


def test_a_refusal_is_exit_1_with_its_reason(outputs: str, driver: Driver) -> None:
    driver(Answer(False, "lora.r: found 0"))
    result = raylora("trials", "clone", SWEEP, BEST, "--set", "lora.r=0", "--outputs", outputs)
    assert result.exit_code == 1
    assert "refuses to clone t08: lora.r: found 0" in result.stderr


def test_a_driver_that_says_nothing_is_not_waited_for_for_ever(
    uri: str, outputs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "ANSWER_S", 0.1)
    monkeypatch.setattr(trials, "LOOK_S", 0.02)
    result = raylora("trials", "stop", SWEEP, BEST, "--outputs", outputs)
    assert result.exit_code == 1
    assert "has not answered within 0.1 s" in result.stderr
    assert f"raylora sweeps resume {SWEEP}" in result.stderr
    sweep = get_sweep(uri, SWEEP).summary.mlflow_run_id
    for asked in open_requests(uri, sweep):  # not for the drivers of other tests
        answer(uri, sweep, asked.id, Answer(False, "too late"))


def test_everything_wrong_with_a_clone_s_settings_is_said_at_once(outputs: str) -> None:
    wrong = ("lora.rnak=32", "lora.r", "lora={r: 8}", "model=smollm2", "name=other")
    options = [word for change in wrong for word in ("--set", change)]
    result = raylora("trials", "clone", SWEEP, BEST, *options, "--outputs", outputs, "-o", "json")
    assert result.exit_code == 5, result.output
    problems = {p["key"]: p["message"] for p in json.loads(result.stderr)["error"]["problems"]}
    assert problems == {
        "lora.rnak": "there is no such key",
        "lora.r": "is not KEY=VALUE",
        "lora": "a clone gives single keys another value",
        "model": "a clone gives single keys another value",
        "name": "is the same in all trials",
    }


def test_a_clone_changes_something(outputs: str) -> None:
    assert raylora("trials", "clone", SWEEP, BEST, "--outputs", outputs).exit_code == 2


def test_a_trial_that_is_not_there_or_over_is_not_stopped(outputs: str) -> None:
    unknown = raylora("trials", "stop", SWEEP, "t80", "--outputs", outputs)
    assert unknown.exit_code == 5
    assert "t08" in unknown.stderr
    over = raylora("trials", "stop", SWEEP, ENDED_EARLY, "--outputs", outputs)
    assert over.exit_code == 1
    assert "t01 is stopped already, after 3 steps" in over.stderr
