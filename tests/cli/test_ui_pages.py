"""MLflow's own pages of a sweep and its adapter, looked at in a real headless browser."""

import html
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from mlflow.tracking import MlflowClient
from tests.stored_sweep import BEST, RANKS, STEPS, SWEEP, store_sweep

from raylora.tracking.adapters.promotion import promote
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.runs import attach
from raylora.tracking.store import connect
from raylora.tracking.sweeps import get_sweep
from raylora.tracking.ui_server import serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

BROWSER = "chromium"
SETTLED_MS = 30_000
"""Of the page's own time, which passes as fast as it can be computed."""
TRIES = 4


class Site:
    """The pages, and what is stored behind them."""

    def __init__(self, url: str, uri: str, profile: Path) -> None:
        self.client: MlflowClient = connect(uri)
        self.sweep = get_sweep(uri, SWEEP)
        self.best = self.sweep.trial(BEST).mlflow_run_id
        self.experiment = self.client.get_run(self.best).info.experiment_id
        self._url = url
        self._profile = profile

    def shows(self, path: str, *wanted: str) -> None:
        """Assert what a page shows, loaded again where a busy machine left charts out."""
        shown, missing = "", list(wanted)
        for _ in range(TRIES):
            shown = self._text(path)
            missing = [words for words in wanted if words not in shown]
            if not missing:
                return
        pytest.fail(f"{path} shows no {missing}, but: {shown[-2000:]}")

    def _text(self, path: str) -> str:
        """Of a page once it has settled, white space as one space."""
        browser = shutil.which(BROWSER)
        assert browser is not None
        shown = subprocess.run(
            [
                *(browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"),
                *(f"--user-data-dir={self._profile}", "--window-size=1400,1000"),
                *(f"--virtual-time-budget={SETTLED_MS}", f"{self._url}/#/{path}"),
            ],
            capture_output=True,
            text=True,
            timeout=240,
            check=True,
        ).stdout
        return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", shown)))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Site]:
    if shutil.which(BROWSER) is None:
        pytest.skip(f"no {BROWSER}: install Debian's {BROWSER} to look at MLflow's pages")
    folder = tmp_path_factory.mktemp("ui")
    uri = store_sweep(folder, empty_store)
    best = get_sweep(uri, SWEEP).trial(BEST)
    run = attach(uri, best.mlflow_run_id)
    run.log_dict({"lora": {"r": 32}, "note": "previewed"}, "spec.yaml")
    adapter = folder / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    registry = Registry(uri)
    version = registry.register("home", run, adapter, tags={"lora.r": "32"})
    promote(registry, str(version))
    with serving(uri, 0) as server:
        yield Site(server.url, uri, tmp_path_factory.mktemp("profile"))


def test_a_run_has_charts_by_step(site: Site) -> None:
    site.shows(
        f"experiments/{site.experiment}/runs/{site.best}/model-metrics",
        *("Model metrics (2)", "loss", "grad_norm", "Step"),
        *(f" {step} " for step in range(1, STEPS + 1)),
    )


def test_a_sweep_is_compared_over_rank_and_learning_rate(site: Site) -> None:
    runs = quote(json.dumps([trial.mlflow_run_id for trial in site.sweep.trials]))
    experiments = quote(json.dumps([site.experiment]))
    site.shows(
        f"compare-runs?runs={runs}&experiments={experiments}",
        f"Comparing {len(site.sweep.trials)} Runs",
        *("Parallel Coordinates Plot", "lora.r", "training.learning_rate", "loss"),
        f"{max(RANKS)}.00000",  # the end of the rank's axis
    )


def test_an_artifact_has_a_preview(site: Site) -> None:
    site.shows(f"experiments/{site.experiment}/runs/{site.best}/artifacts/spec.yaml", "previewed")


def test_a_version_has_its_alias_and_its_run(site: Site) -> None:
    site.shows("models/home", "Version 1", "champion")
    site.shows("models/home/versions/1", "Source Run", "home-requests")
