import pytest
import yaml

from raylora.config.compose import load_evaluate
from raylora.config.evaluate_spec import AskedSpec, EvaluateSpec
from raylora.config.metric import Metric, lower_is_better, needs_answer
from raylora.config.presets import Kind, kind_of, shipped
from raylora.errors import InvalidConfig


def problems(*overrides: str) -> dict[str, str]:
    with pytest.raises(InvalidConfig) as caught:
        load_evaluate("quickstart", overrides)
    return {problem.key: problem.message for problem in caught.value.problems}


@pytest.mark.parametrize(
    ("source", "label"),
    [
        ("bundled:home_requests/heldout", "home_requests"),
        ("data/my rows.jsonl", "my-rows"),
        ("s3://bucket/test/rows.parquet", "rows"),
        ("hub:org/name", "name"),
        ("***", "data"),
    ],
)
def test_a_data_set_is_called_after_its_source(source: str, label: str) -> None:
    assert AskedSpec(source=source).label == label
    assert AskedSpec(source=source, name="mine").label == "mine"


def test_what_a_data_set_does_not_say_holds_for_all() -> None:
    spec = EvaluateSpec.model_validate(
        {
            "datasets": [{"source": "a"}, {"source": "b", "max_rows": 3, "metrics": ["loss"]}],
            "evaluation": {"max_rows": 9, "max_new_tokens": 5},
        }
    )
    first, second = spec.datasets
    assert (spec.max_rows_of(first), spec.max_rows_of(second)) == (9, 3)
    assert spec.metrics_of(second) == ("loss",)
    assert spec.metrics_of(first) == spec.evaluation.metrics
    assert spec.max_new_tokens_of(second) == 5


def test_what_does_not_go_together_is_refused() -> None:
    assert (
        "has no metric called 'bleu'"
        in problems("evaluation.metrics=[bleu]", "datasets=[{}]")["evaluation.metrics"]
    )
    assert "no pattern" in problems("datasets=[{metrics: [regex_match]}]")["datasets.0"]
    assert "no options" in problems("datasets=[{metrics: [choice_accuracy]}]")["datasets.0"]
    assert "regular expression" in problems("datasets=[{pattern: '('}]")["datasets.0.pattern"]
    assert (
        "two data sets are called a"
        in problems("datasets=[{source: a}, {source: b/a}]")["datasets"]
    )
    assert "empty" in problems("datasets=[]")["datasets"]
    assert "base twice" in problems("subjects=[base,base]")["subjects"]


def test_metrics_know_what_they_look_at() -> None:
    assert not needs_answer(Metric.LOSS) and not needs_answer(Metric.CHOICE_ACCURACY)
    assert needs_answer(Metric.ROUGE_L) and needs_answer("mine:f")
    assert lower_is_better("perplexity") and not lower_is_better("mine:loss")


def test_a_file_with_subjects_is_an_evaluation(tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("subjects: [base]\n", encoding="utf-8")
    assert kind_of(str(path)) is Kind.EVALUATE
    assert kind_of("evaluate/quickstart") is Kind.EVALUATE


@pytest.mark.parametrize("name", ["quickstart", "forgetting"])
def test_presets_ask_as_the_quickstart_trains(name: str) -> None:
    trained = yaml.safe_load(shipped("data/home_requests").path.read_text("utf-8"))
    asked = load_evaluate(name).spec.datasets[0]
    assert asked.system_prompt == trained["system_prompt"].strip()
