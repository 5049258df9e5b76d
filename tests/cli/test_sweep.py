"""raylora sweep: what it refuses, before anything is started."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from raylora.cli.main import cli
from raylora.config.compose import load_sweep
from raylora.config.sweep_spec import Scheduler, Searcher
from raylora.errors import InvalidConfig


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`raylora sweep ...` where no cluster is, and none may be started."""
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path))
    return lambda *arguments: CliRunner().invoke(
        cli, ["sweep", *arguments, "--address", "http://127.0.0.1:1"]
    )


def test_everything_wrong_with_a_search_is_said_before_the_cluster_is_asked(run):
    result = run(
        "quickstart-sweep",
        "sweep.space={lora.rnak: {choice: [4]}, lora.r: {choice: [4, 0]}}",
        "sweep.metric=accuracy",
        "-o",
        "json",
    )
    assert result.exit_code == 5
    keys = {problem["key"] for problem in json.loads(result.stderr)["error"]["problems"]}
    assert keys == {"lora.rnak", "sweep.space.lora.r", "sweep.metric"}


def test_a_right_one_asks_the_cluster(run):
    assert run("quickstart-sweep").exit_code == 3


def test_an_unknown_preset_names_those_there_are(run):
    result = run("quickstrat-sweep")
    assert result.exit_code == 5 and "quickstart-sweep" in result.stderr


def test_the_quickstart_is_eight_trials_over_rank_and_rate_under_asha():
    spec = load_sweep("quickstart-sweep").spec
    assert (spec.sweep.searcher, spec.sweep.scheduler) == (Searcher.GRID, Scheduler.ASHA)
    assert set(spec.sweep.space) == {"lora.r", "lora.lora_alpha", "training.learning_rate"}
    assert spec.sweep.trials == 8


def test_a_key_of_a_space_can_be_changed_on_the_command_line():
    spec = load_sweep("quickstart-sweep", ["sweep.space.lora.r={choice: [2]}"]).spec
    assert spec.sweep.space["lora.r"].choice == (2,)
    with pytest.raises(InvalidConfig):
        load_sweep("quickstart-sweep", ["sweep.space.lora.r={choise: [2]}"])
