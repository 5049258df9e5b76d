"""The notebook runs from its first cell to its last, on the suite's cluster and the tiny model."""

import json
from pathlib import Path

import pytest
import yaml
from tests.examples.notebook import EXAMPLES, run

from raylora.cluster.connect import Cluster
from raylora.jobs.evaluate import predictions

NOTEBOOK = EXAMPLES / "score.ipynb"


@pytest.mark.ray
def test_it_scores_a_file(
    local_cluster: Cluster,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = '{"prompt":"on","completion":"yes"}\n{"prompt":"off","completion":"no"}\n'
    (tmp_path / "rows.jsonl").write_text(rows, encoding="utf-8")
    model = {"source": "path", "id": str(tiny_base), "name": "tiny", "dtype": "fp32"}
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump({"model": model, "subjects": ["base"]}), encoding="utf-8")
    settings = {
        "config": str(config),
        "changes": ["evaluation.max_new_tokens=4", "evaluation.metrics=[exact_match,loss]"],
        "file": "rows.jsonl",
    }
    names = run(NOTEBOOK, settings)
    found = list(predictions.read(tmp_path / "rows.predictions.parquet"))
    assert found == names["results"]
    assert [result.reference for result in found] == ["yes", "no"]
    assert all(result.scores["loss"] for result in found)
    told = json.loads((tmp_path / "rows.metrics.json").read_text("utf-8"))
    assert [score["metric"] for score in told["scores"]] == ["exact_match", "loss"]
    assert "instead of 'yes'" in capsys.readouterr().out
