"""Scores and comparisons from results, without a model."""

import math
from pathlib import Path

import pytest

from raylora.config.evaluate_spec import AskedSpec
from raylora.jobs.evaluate import predictions
from raylora.jobs.evaluate.comparison import Verdict, compare, pairs_of, regressed
from raylora.jobs.evaluate.row_result import RowResult
from raylora.jobs.evaluate.scores import Score, scores_of, unasked_of

ROWS = 60


def results(
    subject: str, metric: str, *values: float | None, tokens: list[int] | None = None
) -> list[RowResult]:
    return [
        RowResult(
            "d",
            "f.jsonl",
            line,
            subject,
            reference_tokens=tokens[line - 1] if tokens else None,
            scores={metric: value},
        )
        for line, value in enumerate(values, 1)
    ]


def spec(**fields: object) -> AskedSpec:
    return AskedSpec.model_validate({"source": "d.jsonl", **fields})


def test_a_score_is_the_mean_of_the_rows_that_have_one() -> None:
    (score,) = scores_of(results("base", "f1", 1.0, None, 0.0, 1.0), ["f1"])
    assert (score.rows, score.mean) == (3, pytest.approx(2 / 3))
    assert score.low is not None and score.mean is not None and score.high is not None
    assert 0 <= score.low < score.mean < score.high <= 1


def test_a_metric_without_a_row_is_missing_and_not_zero() -> None:
    (score,) = scores_of(results("base", "f1", None, None), ["f1"])
    assert score == Score("d", "base", "f1", 0, None, None, None)


def test_losses_weigh_by_tokens_and_perplexity_is_their_exponential() -> None:
    rows = results("base", "loss", 1.0, 3.0, tokens=[30, 10])
    loss, perplexity = scores_of(rows, ["loss", "perplexity"])
    assert loss.mean == pytest.approx(1.5)
    assert perplexity.mean == pytest.approx(math.exp(1.5))
    assert perplexity.low == pytest.approx(math.exp(loss.low or 0))


def test_a_row_that_was_not_asked_is_listed_once_and_scores_nothing() -> None:
    rows = [
        *results("base", "f1", 1.0),
        RowResult("d", "f.jsonl", 2, "base", scores={"f1": None}, unasked="too long"),
        *results("a@1", "f1", 0.0),
        RowResult("d", "f.jsonl", 2, "a@1", scores={"f1": None}, unasked="too long"),
    ]
    assert [(row.line, row.reason) for row in unasked_of(rows)] == [(2, "too long")]
    assert [score.rows for score in scores_of(rows, ["f1"])] == [1, 1]


def test_each_subject_is_compared_with_each_before_it() -> None:
    rows = [
        *results("base", "exact_match", *[0.0] * 40, *[1.0] * 20),
        *results("a@1", "exact_match", *[1.0] * 50, *[0.0] * 10),
        *results("a@2", "exact_match", *[1.0] * 49, *[0.0] * 10, 1.0),
    ]
    first, second, third = compare(rows, spec(), ["exact_match"])
    assert (first.subject, first.against) == ("a@1", "base")
    assert (first.wins, first.losses, first.ties, first.regressions) == (40, 10, 10, 10)
    assert first.difference == pytest.approx(0.5)
    assert first.verdict is Verdict.BETTER and first.low > 0
    assert (second.subject, second.against) == ("a@2", "base")
    assert (third.subject, third.against) == ("a@2", "a@1")
    assert (third.wins, third.losses, third.regressions) == (1, 1, 1)
    assert third.verdict is Verdict.OPEN
    assert {comparison.forgetting for comparison in (first, second, third)} == {None}


def test_less_loss_is_better_and_never_right() -> None:
    rows = [
        *results("base", "loss", *[2.0] * ROWS, tokens=[5] * ROWS),
        *results("a@1", "loss", *[1.0] * ROWS, tokens=[5] * ROWS),
    ]
    (found,) = compare(rows, spec(), ["loss", "perplexity"])
    assert (found.wins, found.losses, found.regressions) == (ROWS, 0, None)
    assert (found.difference, found.verdict) == (-1.0, Verdict.BETTER)


@pytest.mark.parametrize(("gain", "forgotten"), [(0.3, True), (-0.3, False), (0.0, False)])
def test_being_worse_than_the_base_on_general_data_is_forgetting(
    gain: float, forgotten: bool
) -> None:
    """Only where the interval says so, and only against the base."""
    rows = [
        *results("base", "loss", *[2.0] * ROWS, tokens=[5] * ROWS),
        *results("a@1", "loss", *[2.0 + gain] * ROWS, tokens=[5] * ROWS),
        *results("a@2", "loss", *[2.0] * ROWS, tokens=[5] * ROWS),
    ]
    found = {(c.subject, c.against): c for c in compare(rows, spec(general=True), ["loss"])}
    assert found["a@1", "base"].forgetting is forgotten
    assert found["a@2", "base"].forgetting is False
    assert found["a@2", "a@1"].forgetting is None


def test_a_handful_of_rows_decides_nothing() -> None:
    for rows, verdict in ((9, Verdict.OPEN), (10, Verdict.BETTER)):
        pair = [*results("base", "f1", *[0.0] * rows), *results("a@1", "f1", *[1.0] * rows)]
        assert [c.verdict for c in compare(pair, spec(), ["f1"])] == [verdict]


def test_only_rows_that_both_have_are_compared() -> None:
    rows = [
        *results("base", "f1", 1.0, 1.0, None),
        *results("a@1", "f1", 0.0, None, 1.0),
    ]
    (found,) = compare(rows, spec(), ["f1", "nowhere"])
    assert (found.rows, found.losses, found.regressions) == (1, 1, 1)


def test_the_rows_that_got_worse_come_the_worst_first() -> None:
    rows = [
        *results("base", "f1", 1.0, 0.5, 1.0, 0.0),
        *results("a@1", "f1", 0.9, 0.0, 0.2, 1.0),
    ]
    pairs = regressed(pairs_of(rows, "a@1", "base", "f1"))
    assert [pair.subject.line for pair in pairs] == [3, 2, 1]


def test_predictions_come_back_from_their_file(tmp_path: Path) -> None:
    rows = [
        RowResult(
            *("d", "f.jsonl", 1, "a@1"),
            prompt=[{"role": "user", "content": "gr\u00fc\u00df"}],
            reference="r",
            answer="a",
            finish_reason="stop",
            tokens=3,
            choice="r",
            reference_tokens=2,
            scores={"loss": 0.25, "mine:f": None},
        ),
        RowResult("d", "f.jsonl", 2, "a@1", unasked="too long"),
    ]
    path = tmp_path / "deep" / "predictions.parquet"
    predictions.write(path, rows)
    assert list(predictions.read(path)) == rows
