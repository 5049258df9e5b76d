"""The room against a real `mlflow server`: what SQLite does, a server must do too."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.registry.gate import Gate, gate
from tests.tracking.mlflow_server import (
    ADMIN,
    PASSWORD,
    guarded_server,
    mlflow_server,
    postgres,
)

from raylora.errors import NotAuthorised, NotFound
from raylora.tracking.adapters.promotion import promote
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.run import RunStatus
from raylora.tracking.runs import attach, compare_runs, get_run, list_runs, open_run
from raylora.tracking.spooling import courier, tracked
from raylora.tracking.spooling.spooled import attach as attach_spool
from raylora.tracking.spooling.sync import sync
from raylora.tracking.spooling.tracked import TrackedRun, start


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An MLflow server with SQLite behind it that serves artifacts itself."""
    with mlflow_server(tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture
def way(server: str) -> Iterator[Gate]:
    """What lies between a job and the server."""
    with gate(int(server.rpartition(":")[2])) as made:
        yield made


def begin(url: str, run_id: str, folder: Path) -> TrackedRun:
    spool = folder / "experiments" / "spooled" / "runs" / run_id / "tracking"
    return start(url, "spooled", run_id, "late", spool, params={"seed": 0}, tags={"git": "abc"})


def log_steps(folder: Path, run_id: str, first: int, last: int) -> None:
    spool = folder / "experiments" / "spooled" / "runs" / run_id / "tracking"
    worker = attach_spool(spool, run_id)
    for step in range(first, last + 1):
        worker.log_metrics({"loss": 1 / step, "grad_norm": 1.0}, step)
    worker.close()


def test_a_server_that_goes_and_comes_back_has_every_point_once(
    server: str, way: Gate, tmp_path: Path, make_adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "LONGEST_PAUSE_SECONDS", 0.2)
    port, way.port = way.port, None
    run = begin(way.url, "late-1", tmp_path)
    assert not run.known_within(0.5)
    log_steps(tmp_path, "late-1", 1, 40)
    way.port = port
    assert run.settle(120) == ""
    way.port = None
    log_steps(tmp_path, "late-1", 31, 80)
    way.port = port
    made = run.register("late", make_adapter("late"), {}, None, 60)
    assert made is not None and made.adapter == "late@1"
    run.finish(RunStatus.FINISHED)
    assert run.settle(60) == ""
    found = get_run(server, "late-1")
    assert found.summary.status is RunStatus.FINISHED
    for key in ("loss", "grad_norm"):
        assert found.metrics[key].points == found.metrics[key].last_step == 80
    assert [r.run_id for r in list_runs(server, experiment="spooled", limit=9)] == ["late-1"]


def test_a_slow_server_holds_nobody_up_and_is_synced_later(
    server: str, way: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracked, "OPEN_SECONDS", 0.2)
    way.delay_s = 6.0
    began = time.monotonic()
    run = begin(way.url, "slow-1", tmp_path)
    run.wait_until_known()
    log_steps(tmp_path, "slow-1", 1, 500)
    run.finish(RunStatus.FINISHED)
    assert run.settle(0.0) != ""
    assert time.monotonic() - began < way.delay_s
    run._courier.withdraw(run._sent)
    way.delay_s = 0.0
    spool = tmp_path / "experiments" / "spooled" / "runs" / "slow-1" / "tracking"
    deadline = time.monotonic() + 60
    while get_or_none(server, "slow-1") is not RunStatus.FINISHED:
        list(sync([spool], server))
        assert time.monotonic() < deadline
    found = get_run(server, "slow-1")
    assert found.metrics["loss"].points == 500


def get_or_none(server: str, run_id: str) -> RunStatus | None:
    try:
        return get_run(server, run_id).summary.status
    except NotFound:
        return None


@pytest.mark.slow
def test_basic_auth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with guarded_server(tmp_path) as url:
        with pytest.raises(NotAuthorised):
            begin(url, "auth-0", tmp_path).wait_until_known()
        assert not (tmp_path / "experiments/spooled/runs/auth-0/tracking").exists()
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", ADMIN)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        _whole_run(url, "auth-1", tmp_path)


@pytest.mark.slow
def test_postgres(tmp_path: Path) -> None:
    with postgres(tmp_path) as store, mlflow_server(tmp_path, store) as url:
        _whole_run(url, "pg-1", tmp_path)


def _whole_run(url: str, run_id: str, folder: Path) -> None:
    run = begin(url, run_id, folder)
    assert run.wait_until_known() is None
    log_steps(folder, run_id, 1, 2_500)
    log_steps(folder, run_id, 2_400, 2_600)
    adapter = folder / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    made = run.register("home", adapter, {"lora.r": "8"}, None, 60)
    assert made is not None and made.aliases == ("champion",)
    run.finish(RunStatus.KILLED)
    assert run.settle(60) == ""
    found = get_run(url, run_id)
    assert found.metrics["loss"].points == 2_600 and found.params == {"seed": "0"}
    assert found.summary.status is RunStatus.KILLED and found.summary.adapter == "home@1"


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
