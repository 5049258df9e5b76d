"""What a job needs to be let in by its tracking server: it gets there, and is written nowhere."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from tests.tracking.mlflow_server import ADMIN, PASSWORD, guarded_server

from raylora.cli.main import cli
from raylora.cluster import head
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.run import RunStatus
from raylora.tracking.runs import get_run

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def own_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cluster is started with the environment of the first command."""
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", ADMIN)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    yield
    head.stop()


def test_a_password_reaches_a_job_and_stands_nowhere(
    own_head: None, tiny_base: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    row = {"prompt": "on", "completion": "yes"}
    rows.write_text(4 * f"{json.dumps(row)}\n", encoding="utf-8")
    server = tmp_path / "server"
    server.mkdir()
    with guarded_server(server) as url:
        spec = {
            "name": "guarded",
            "outputs": str(tmp_path / "outputs"),
            "model": {"source": "path", "id": str(tiny_base), "name": "tiny", "dtype": "fp32"},
            "data": {"train": str(rows)},
            "training": {"max_steps": 2, "global_batch_size": 2, "micro_batch_size": 2},
            "tracking": {"uri": url},
        }
        config = tmp_path / "guarded.yaml"
        config.write_text(yaml.safe_dump(spec), encoding="utf-8")
        done = CliRunner().invoke(cli, ["submit", str(config), "--output", "json"])
        assert done.exit_code == 0, done.output
        run_id = json.loads(done.stdout.splitlines()[-1])["run_id"]
        run = get_run(url, run_id)
        assert run.summary.status is RunStatus.FINISHED and run.metrics["loss"].points == 2
        assert str(Registry(url).resolve("guarded")) == run.summary.adapter == "guarded@1"
        assert PASSWORD not in done.output + repr(run)
    state = head.running()
    assert state is not None
    kept = [Path(state.temp_dir), tmp_path / "home", tmp_path / "outputs", server / "artifacts"]
    # It is looked for where the job is known at all.
    assert all(_holding(run_id, folder) for folder in kept[:3])
    assert [path for folder in kept for path in _holding(PASSWORD, folder)] == []


def _holding(word: str, folder: Path) -> list[Path]:
    """The files below a folder in which a word stands."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if word.encode() in path.read_bytes()]
