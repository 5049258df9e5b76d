import os
import sqlite3
import subprocess
import sys
from pathlib import Path

from raylora.config.train_spec import TrackingSpec
from raylora.tracking.location import tracking_uri
from raylora.tracking.runs import get_run, list_runs

WRITER = """
import sys
from raylora.tracking.runs import RunStatus, open_run
uri, number = sys.argv[1:]
run = open_run(uri, "race", f"run-{number}", "racer", params={"n": number}, tags={})
for step in range(1, 201):
    run.log_metrics({"loss": float(step)}, step)
    if step % 20 == 0:
        run.flush()
run.log_dict({"n": number}, "spec.json")
run.finish(RunStatus.FINISHED)
"""


def test_processes_that_race_for_a_fresh_store_share_it(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    outputs = tmp_path / "new" / "outputs"
    uri = tracking_uri(TrackingSpec(), str(outputs))
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, uri, str(number)],
            cwd=elsewhere,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    said = [writer.communicate(timeout=120)[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0], said
    assert not any("locked" in text or "Error" in text for text in said), said

    assert {run.run_id for run in list_runs(uri, limit=10)} == {"run-0", "run-1"}
    for number in range(2):
        run = get_run(uri, f"run-{number}")
        assert run.metrics["loss"].points == 200
        assert run.artifacts == ["spec.json"]
    assert os.listdir(elsewhere) == []
    assert {path.name for path in outputs.iterdir()} == {
        "mlartifacts",
        "mlflow.db",
        "mlflow.db.lock",
    } | {path.name for path in outputs.glob("mlflow.db-*")}


def test_a_store_of_ours_is_complete_and_has_a_write_ahead_log(empty_store: Path) -> None:
    connection = sqlite3.connect(empty_store)
    try:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        (location,) = connection.execute("SELECT artifact_location FROM experiments").fetchone()
    finally:
        connection.close()
    assert location == str(empty_store.parent / "mlartifacts" / "0")


def test_using_the_room_imports_no_torch_and_no_ray(uri: str) -> None:
    code = (
        "import sys\n"
        "import raylora.tracking.runs\n"
        "import raylora.tracking.adapters.registry, raylora.tracking.adapters.promotion\n"
        "assert 'mlflow' not in sys.modules\n"
        f"raylora.tracking.runs.list_runs({uri!r}, limit=1)\n"
        "assert 'mlflow' in sys.modules\n"
        "assert not {'torch', 'ray', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
