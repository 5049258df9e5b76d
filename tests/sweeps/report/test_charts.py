"""Which plots findings get, and how values that are no plain numbers lie on their axes."""

import random
from datetime import UTC, datetime
from typing import Any

import pytest

from raylora.config.sweep_spec import Mode
from raylora.jobs.html_page import Chart
from raylora.sweeps.report.charts import charts
from raylora.sweeps.report.findings import Findings, find
from raylora.tracking.run import RunStatus
from raylora.tracking.sweep_facts import SweepDetails, SweepSummary, TrialRecord, TrialStatus
from raylora.tracking.sweeps import Point

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def trial(name: str, settings: dict[str, Any], score: float, size: int | None) -> TrialRecord:
    return TrialRecord(
        name=name,
        run_id=name,
        mlflow_run_id=name,
        state=TrialStatus.FINISHED,
        settings=settings,
        step=2,
        metrics={"validation_exact_match": score},
        error="",
        submit=f"raylora submit x {name}",
        copies=[],
        mode="fused",
        started=NOW,
        ended=NOW,
        duration_s=score,
        adapter_bytes=size,
    )


def findings(trials: list[TrialRecord]) -> Findings:
    """Of a sweep that maximises a score."""
    summary = SweepSummary(
        run_id="sweep",
        mlflow_run_id="sweep",
        name="intents",
        experiment="home",
        status=RunStatus.FINISHED,
        started=NOW,
        ended=NOW,
        duration_s=1.0,
        metric="validation_exact_match",
        mode=Mode.MAX,
        searcher="random",
        scheduler="none",
        trials=len(trials),
        states={TrialStatus.FINISHED: len(trials)},
        best_trial=None,
        best_adapter=None,
    )
    score = summary.metric
    curves = {t.name: [Point(1, 0.0), Point(2, t.metrics[score])] for t in trials}
    return find(SweepDetails(summary, trials), curves)


def first_trace(chart: Chart) -> Any:
    return chart.figure.data[0]


def drawn(found: Findings) -> dict[str, Chart]:
    return {chart.id: chart for chart in charts(found)}


@pytest.fixture(scope="module")
def found() -> Findings:
    """Twelve drawn rates with two schedules; the size of no adapter is known."""
    dice = random.Random(0)
    rates = [10 ** dice.uniform(-5, -3) for _ in range(12)]
    schedules = ("linear", "<cosine>")
    return findings(
        [
            trial(
                f"t{n:02}",
                {"training.lr_scheduler": schedules[(n + 1) % 2], "training.learning_rate": rate},
                rate * 100,
                None,
            )
            for n, rate in enumerate(rates, 1)
        ]
    )


def test_more_is_better_where_the_search_says_so(found: Findings) -> None:
    best = found.best
    assert best is not None
    assert best.settings["training.learning_rate"] == max(
        t.settings["training.learning_rate"] for t in found.trials
    )
    (time,) = [tradeoff for tradeoff in found.tradeoffs if tradeoff.cost == "duration_s"]
    assert time.front[-1] == best.name
    assert len(time.front) == 12  # each one that scores more has also taken longer


def test_rates_are_on_a_logarithmic_axis_and_words_on_one_of_categories(found: Findings) -> None:
    plane = drawn(found)["plane"]
    layout: Any = plane.figure.layout
    assert (layout.xaxis.type, layout.yaxis.type) == ("log", "category")
    assert set(first_trace(plane).y) == {"linear", "<cosine>"}
    assert not first_trace(plane).marker.reversescale


def test_parallel_coordinates_say_what_their_places_mean(found: Findings) -> None:
    words, rates, score = first_trace(drawn(found)["parallel"]).dimensions
    assert words.ticktext == ("linear", "<cosine>")
    assert set(words["values"]) == {0, 1}
    assert min(rates["values"]) >= -5 and max(rates["values"]) <= -3
    assert len(rates.ticktext) == 8
    assert score.label == "validation_exact_match"


def test_what_a_setting_says_is_no_markup(found: Findings) -> None:
    hovers = first_trace(drawn(found)["plane"]).hovertemplate
    assert any("&lt;cosine&gt;" in hover for hover in hovers)
    assert not any("<cosine>" in hover for hover in hovers)


def test_what_there_is_no_data_for_is_left_out(found: Findings) -> None:
    assert set(drawn(found)) == {"curves", "importance", "plane", "parallel", "front-duration_s"}
    one_key = [trial(f"t{n}", {"lora.r": n}, n / 10, 100 * n) for n in (2, 4)]
    charts_of_one = drawn(findings(one_key))
    assert set(charts_of_one) == {"curves", "plane", "front-adapter_bytes", "front-duration_s"}
    assert list(first_trace(charts_of_one["plane"]).y) == [0.2, 0.4]
    same = [trial(f"t{n}", {}, 0.5, 1) for n in (1, 2)]
    assert set(drawn(findings(same))) == {"curves", "front-adapter_bytes", "front-duration_s"}
