"""An evaluation as a job on the suite's cluster: what it logs, and what `score` puts beside."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from transformers import LlamaForCausalLM

from raylora.cli.main import cli
from raylora.cluster.connect import Cluster
from raylora.config.lora_spec import LoraSpec
from raylora.config.model_spec import ModelSource, ModelSpec
from raylora.config.places import cache
from raylora.jobs.evaluate import predictions
from raylora.lora.attach import attach, save_adapter
from raylora.lora.sources import fetch
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.run import RunStatus
from raylora.tracking.runs import get_run, open_run
from raylora.tracking.store import ensure_database

pytestmark = pytest.mark.ray

ROWS = [
    {"prompt": "on", "completion": "yes", "options": ["yes", "no"]},
    {"prompt": "off", "completion": "no", "options": ["yes", "no"]},
    {"prompt": "x" * 600, "completion": "no", "options": ["yes", "no"]},
]


def raylora(*words: str) -> Result:
    return CliRunner().invoke(cli, words)


def register(uri: str, base: Path, folder: Path, seed: int) -> None:
    """The next version of `mine`."""
    model: Any = attach(
        LlamaForCausalLM.from_pretrained(base), LoraSpec.model_validate({"r": 4}), seed
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3, generator=torch.Generator().manual_seed(seed))
    spec = ModelSpec(source=ModelSource.PATH, id=str(base), name="tiny")
    lineage = {"run_id": f"r{seed}", "quantization": "none" if seed == 1 else "nf4"}
    save_adapter(model, folder, fetch(spec, cache()), lineage)
    run = open_run(uri, "default", f"r{seed}", "mine", params={}, tags={})
    Registry(uri).register("mine", run, folder, tags={})
    run.finish(RunStatus.FINISHED)


@pytest.fixture
def spec(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration over two versions, in the test's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAYLORA_CACHE", str(tmp_path / "cache"))
    outputs = tmp_path / "outputs"
    ensure_database(outputs / "mlflow.db", outputs / "mlartifacts")
    uri = f"sqlite:///{outputs}/mlflow.db"
    for seed in (1, 2):
        register(uri, tiny_base, tmp_path / f"adapter-{seed}", seed)
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "rows.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "mine.py").write_text("def short(a, r):\n    return len(a) < 99\n", "utf-8")
    settings = {
        "name": "tiny-evaluation",
        "model": {"source": "path", "id": str(tiny_base), "name": "tiny", "dtype": "fp32"},
        "subjects": ["base", "mine@1", "mine@2"],
        "module": "mine.py",
        "datasets": [
            {
                "source": "rows.jsonl",
                "options_column": "options",
                "general": True,
                "metrics": ["exact_match", "mine:short", "choice_accuracy", "perplexity"],
            },
            {"source": "bundled:home_requests/heldout", "max_rows": 2},
        ],
        "evaluation": {"max_new_tokens": 4, "batch_size": 6},
    }
    config = tmp_path / "evaluation.yaml"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return config


def test_many_adapters_on_many_data_sets(
    spec: Path, local_cluster: Cluster, tmp_path: Path
) -> None:
    done = raylora("score", str(spec), "--output", "json")
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    end = lines[-1]
    assert end["state"] == "SUCCEEDED"

    scores = {(s["dataset"], s["subject"]): s for s in end["scores"]}
    assert len(scores) == 6
    base = scores["rows", "base"]
    assert (base["rows"], base["unasked"]) == (2, 1)
    assert base["metrics"]["mine:short"] == 1.0
    assert base["metrics"]["perplexity"] > 1
    notices = {line["text"] for line in lines if line["event"] == "notice"}
    assert notices > {"5 of 5 rows asked"}
    (other,) = (text for text in notices if "quantization" in text)
    assert other.startswith("mine@2 was trained on a base with quantization nf4")
    pairs = {(c["subject"], c["against"]) for c in end["comparisons"]}
    assert pairs == {("mine@1", "base"), ("mine@2", "base"), ("mine@2", "mine@1")}

    found = list(predictions.read(tmp_path / "rows.predictions.parquet"))
    assert [(r.line, r.subject) for r in found] == [
        (line, name) for line in (1, 2, 3) for name in ("base", "mine@1", "mine@2")
    ]
    assert all("context length" in r.unasked for r in found[-3:])
    metrics = json.loads((tmp_path / "rows.metrics.json").read_text("utf-8"))
    assert metrics["dataset"]["asked"] == 2
    assert [row["line"] for row in metrics["unasked"]] == [3]
    assert {c["forgetting"] for c in metrics["comparisons"] if c["against"] == "base"} <= {
        *(True, False)
    }
    assert not (tmp_path / "home_requests.metrics.json").exists()

    run = get_run(f"sqlite:///{tmp_path}/outputs/mlflow.db", end["run_id"])
    assert run.summary.status is RunStatus.FINISHED
    assert run.tags["raylora.type"] == "evaluation"
    assert run.tags["raylora.subjects"] == "base, mine@1, mine@2"
    assert run.metrics["rows/mine.short/mine.2"].last == 1.0
    assert run.metrics["rows/unasked"].last == 1.0
    assert [d.context for d in run.datasets] == ["evaluation", "evaluation"]
    assert {
        "evaluation/evaluation.html",
        "evaluation/evaluation.json",
        "evaluation/predictions/home_requests.parquet",
        "evaluation/predictions/rows.parquet",
    } <= set(run.artifacts)
    page = (Path(end["folder"]) / "evaluation.html").read_text("utf-8")
    for text in ("against mine@1", "Rows that were not asked", "Forgetting check"):
        assert text in page
    assert "<script src" not in page and "<link" not in page


def test_a_server_that_is_away_costs_no_result(
    spec: Path, local_cluster: Cluster, tmp_path: Path
) -> None:
    nowhere = ("tracking.uri=http://127.0.0.1:9", "tracking.settle_seconds=1")
    done = raylora("score", str(spec), "subjects=[base]", *nowhere)
    assert done.exit_code == 0, done.output
    metrics = json.loads((tmp_path / "rows.metrics.json").read_text("utf-8"))
    run_id = metrics["run_id"]
    assert f"`raylora runs sync {run_id}` sends what waits" in done.stderr
    assert (tmp_path / "rows.predictions.parquet").is_file()

    uri = f"sqlite:///{tmp_path}/outputs/mlflow.db"
    sent = raylora("runs", "sync", run_id, "--tracking-uri", uri)
    assert sent.exit_code == 0, sent.output
    run = get_run(uri, run_id)
    assert run.summary.status is RunStatus.FINISHED
    assert run.metrics["rows/unasked"].last == 1.0
    assert "evaluation/predictions/rows.parquet" in run.artifacts
