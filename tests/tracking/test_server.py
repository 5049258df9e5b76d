"""The room against a real `mlflow server`: what SQLite does, a server must do too."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from raylora.errors import NotFound
from raylora.tracking.promotion import promote
from raylora.tracking.registry import Registry
from raylora.tracking.runs import RunStatus, attach, compare_runs, get_run, list_runs, open_run


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An MLflow server with SQLite behind it that serves artifacts itself."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = folder / "log.txt"
    with log.open("wb") as said:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | quiet,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        # Its session is its own, so the group is the server and the workers it forked.
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def test_train_restart_register_promote_download(
    server: str, make_adapter, tmp_path: Path
) -> None:
    driver = open_run(server, "served", "run-1", "quickstart", params={"lora": {"r": 8}}, tags={})
    worker = attach(server, driver.mlflow_run_id)
    for step in range(1, 6):
        worker.log_metrics({"loss": 1 / step}, step)
    worker.flush()
    again = attach(server, driver.mlflow_run_id)
    for step in range(4, 9):
        again.log_metrics({"loss": 1 / step}, step)
    again.close()
    driver.log_dataset("home/train", "bundled:home/train", "d" * 64, 600, "training")
    driver.log_dict({"lora": {"r": 8}}, "spec.yaml")

    registry = Registry(server)
    version = registry.register("home", driver, make_adapter(), tags={"lora.r": "8"})
    assert promote(registry, str(version), only_if_unset=True).moved
    driver.finish(RunStatus.FINISHED)
    worker.close()

    run = get_run(server, "run-1")
    assert run.summary.status is RunStatus.FINISHED
    assert run.summary.adapter == "home@1"
    assert (run.metrics["loss"].points, run.metrics["loss"].last) == (8, 1 / 8)
    assert run.params == {"lora.r": "8"}
    assert run.datasets[0].rows == 600
    assert sorted(run.artifacts) == [
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "adapter/raylora.json",
        "spec.yaml",
    ]
    assert version.source.startswith("mlflow-artifacts:/")
    assert registry.resolve("home").aliases == ("champion",)
    assert set(registry.show("home@champion").files) == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "raylora.json",
    }
    copy = registry.download(registry.resolve("home"), tmp_path / "cache")
    assert (copy / "adapter_model.safetensors").read_bytes() == b"weights"


def test_a_second_version_leaves_the_champion(server: str, make_adapter) -> None:
    registry = Registry(server)
    for number in range(2):
        run = open_run(server, "served", f"two-{number}", "two", params={"n": number}, tags={})
        run.log_metrics({"loss": 0.5 - number / 10}, 1)
        files = make_adapter(f"two-{number}", weights=bytes([number]))
        version = registry.register("two", run, files, tags={})
        promote(registry, str(version), only_if_unset=True)
        run.finish(RunStatus.FINISHED)
    assert registry.show("two").aliases == {"champion": 1}
    assert [run.run_id for run in list_runs(server, experiment="served", limit=2)] == [
        "two-1",
        "two-0",
    ]
    comparison = compare_runs(server, ["two-0", "two-1"])
    assert comparison.params == {"n": ["0", "1"]}
    assert comparison.metrics == {"loss": [0.5, 0.4]}
    assert "two" in {adapter.name for adapter in registry.list()}


@pytest.mark.parametrize("ref", ["nothing", "two@9", "two@canary"])
def test_what_is_not_there(server: str, ref: str) -> None:
    with pytest.raises(NotFound):
        Registry(server).resolve(ref)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert process.poll() is None, log.read_text("utf-8")
            assert time.monotonic() < deadline, log.read_text("utf-8")
            time.sleep(0.2)
