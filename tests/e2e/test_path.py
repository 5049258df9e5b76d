"""The whole path with SmolLM2, as a user types it: quickstart, kept up, asked, taken down."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raylora.cluster import head

RAYLORA = str(Path(sys.executable).with_name("raylora"))

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def raylora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in a folder and with a home of its own."""
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path / "home"))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [RAYLORA, *arguments],
            cwd=tmp_path,
            env=os.environ | {"TTY_COMPATIBLE": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done

    return run


def test_from_a_yaml_to_a_served_adapter(raylora: Run, tmp_path: Path) -> None:
    try:
        # A twelfth of the preset's rows: enough for JSON, not for every answer.
        short = ("training.max_steps=12", "training.global_batch_size=8", "evaluation.max_rows=8")
        report: dict[str, Any] = json.loads(
            raylora("quickstart", "--keep", "--output", "json", *short).stdout
        )
        assert report["adapter"] == report["champion"] == "home-requests@1"
        scores = report["scores"]
        assert scores["adapter"]["json_valid"] > 0.8 > scores["base"]["json_valid"]
        assert scores["adapter"]["json_fields"] > scores["base"]["json_fields"] + 0.3
        assert report["answers"]["home-requests@1"]["model"] == "home-requests@1"
        assert report["answers"][report["base"]]["model"] == report["base"]

        runs = json.loads(raylora("runs", "list", "--output", "json").stdout)
        assert [(run["run_id"], run["status"]) for run in runs] == [(report["run_id"], "FINISHED")]
        raylora("adapters", "verify", "home-requests@champion")
        for command in report["next_commands"]:
            raylora(*_words(command))
    finally:
        head.stop()
    assert head.running() is None


def _words(command: str) -> list[str]:
    name, *words = shlex.split(command)
    assert name == "raylora"
    return words
