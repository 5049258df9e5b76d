"""What the page about evaluation shows is run: its settings, its rows, its metric."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.docs.fences import DOCS, cases

from raylora.config.compose import load_evaluate
from raylora.config.evaluate_spec import EvaluateSpec
from raylora.config.metric import Metric
from raylora.jobs.evaluate.asked_rows import read
from raylora.jobs.evaluate.examiner import Examiner
from raylora.jobs.evaluate.subject import THE_BASE

PAGE = "evaluation.md"


@pytest.fixture
def blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """The page's own example, as files in the current folder."""
    monkeypatch.chdir(tmp_path)
    found: dict[str, str] = {}
    for case in cases(PAGE):
        if case.heading == "Your own rows":
            found |= case.blocks
    names = {"yaml": "my_evaluation.yaml", "jsonl": "rows.jsonl", "python": "my_metrics.py"}
    for language, name in names.items():
        (tmp_path / name).write_text(found[language], encoding="utf-8")
    return found


def test_its_example_runs(blocks: Mapping[str, str], tiny_base: Path) -> None:
    spec = load_evaluate("my_evaluation.yaml").spec
    model = {"source": "path", "id": str(tiny_base), "name": "tiny", "dtype": "fp32"}
    spec = EvaluateSpec.model_validate(spec.model_dump() | {"model": model, "subjects": ("base",)})
    examiner = Examiner(spec, [THE_BASE])
    for place, dataset in enumerate(spec.datasets):
        results = examiner.measure(place, read(dataset, 2, Path.cwd()).rows)
        assert [result.unasked for result in results] == ["", ""]
        measured = set(spec.metrics_of(dataset)) - {"perplexity"}
        assert all(set(result.scores) == measured for result in results)
        assert None not in [value for result in results for value in result.scores.values()]


def test_it_names_every_metric() -> None:
    page = (DOCS / PAGE).read_text(encoding="utf-8")
    assert all(f"`{metric}`" in page for metric in Metric)
