"""An evaluation as one HTML page: scores, comparisons with intervals, the rows that got worse."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from raylora.config.metric import Metric, lower_is_better
from raylora.jobs.evaluate.comparison import Comparison, Pair
from raylora.jobs.evaluate.evaluation_report import Report
from raylora.jobs.evaluate.row_result import RowResult
from raylora.jobs.evaluate.scores import Score
from raylora.jobs.html_page import Chart, document, facts, laid_out, note, table

SHOWN = 20
"""Rows that got worse, of each comparison; all of them are in the Parquet file."""
MISSING = "missing"


def page(found: Report) -> str:
    """The whole page."""
    parts = [
        facts(_facts(found)),
        *_forgetting(found),
        _scores(found),
        *_comparisons(found),
        *_unasked(found),
        *_worse(found),
    ]
    return document(f"Evaluation {found.name}", found.run_id, parts, _charts(found))


def _facts(found: Report) -> dict[str, str]:
    asked = sum(facts.asked for facts in found.datasets)
    rows = sum(facts.rows for facts in found.datasets)
    return {
        "base": found.model,
        "subjects": ", ".join(
            _named(subject.label, subject.asked_as) for subject in found.subjects
        ),
        "data sets": ", ".join(facts.name for facts in found.datasets),
        "rows asked": f"{asked} of {rows}",
        "written": f"{found.written:%Y-%m-%d %H:%M} UTC",
    }


def _named(label: str, asked_as: str) -> str:
    return label if label == asked_as else f"{label} ({asked_as})"


def _forgetting(found: Report) -> Iterator[str]:
    """The check against the base on general data, in words."""
    checks = [c for c in found.comparisons if c.forgetting is not None]
    if not checks:
        return
    lines = "".join(
        f'<p class="{"bad" if check.forgetting else ""}">{escape(_said(check))}</p>'
        for check in checks
    )
    yield f'<section class="best"><h2>Forgetting check</h2>{lines}</section>'


def _said(check: Comparison) -> str:
    word = "has forgotten" if check.forgetting else "no forgetting shown"
    return (
        f"{check.subject}: {word} on {check.dataset}, {check.metric} {check.difference:+.4g} "
        f"({check.low:+.4g} to {check.high:+.4g}) against the base, {check.rows} rows"
    )


def _scores(found: Report) -> str:
    head = ["data set", "subject", "metric", "mean", "from", "to", "rows"]
    rows = (
        [s.dataset, s.subject, s.metric, _or_missing(s.mean), s.low, s.high, s.rows]
        for s in found.scores
    )
    caption = "Means over rows with the bootstrap's 95 % interval. Click a heading to sort by it."
    return table("Scores", caption, head, rows, id="scores")


def _comparisons(found: Report) -> Iterator[str]:
    if not found.comparisons:
        return
    head = ["data set", "metric", "subject", "against", "difference", "from", "to"]
    head += ["wins", "losses", "ties", "regressions", "rows", "verdict"]
    rows = (
        [
            *(c.dataset, c.metric, c.subject, c.against, c.difference, c.low, c.high),
            *(c.wins, c.losses, c.ties, c.regressions, c.rows, c.verdict.value),
        ]
        for c in found.comparisons
    )
    caption = (
        "Row by row: how many the subject answers better, worse and alike; a regression was right "
        "and is not any more. The interval is the paired bootstrap's, 95 %."
    )
    yield table("Comparisons", caption, head, rows, id="comparisons")


def _unasked(found: Report) -> Iterator[str]:
    if not found.unasked:
        yield note("Every row could be asked.")
        return
    rows = ([row.dataset, f"{row.file}:{row.line}", row.reason] for row in found.unasked)
    yield table(
        "Rows that were not asked",
        f"{len(found.unasked)} in all; no score counts them.",
        ["data set", "row", "reason"],
        rows,
        id="unasked",
        style="text",
    )


def _worse(found: Report) -> Iterator[str]:
    for place, comparison in enumerate(found.comparisons):
        pairs = found.worse[comparison]
        if not pairs:
            continue
        yield table(
            f"Worse: {comparison.subject} against {comparison.against}, {comparison.metric} on "
            f"{comparison.dataset}",
            f"{min(SHOWN, len(pairs))} of {len(pairs)} rows, the worst first.",
            ["row", "asked", "reference", comparison.subject, comparison.against, "lost by"],
            (_texts(pair) for pair in pairs[:SHOWN]),
            id=f"worse-{place}",
            style="text",
        )


def _texts(pair: Pair) -> Sequence[Any]:
    asked = pair.subject.prompt[-1]["content"] if pair.subject.prompt else ""
    return (
        f"{pair.subject.file.rpartition('/')[2]}:{pair.subject.line}",
        asked,
        pair.subject.reference,
        _given(pair, pair.subject, pair.value),
        _given(pair, pair.against, pair.other),
        -pair.gain,
    )


def _given(pair: Pair, result: RowResult, value: float) -> str | None:
    """What the metric has looked at: a choice, a loss, or an answer."""
    match pair.metric:
        case Metric.CHOICE_ACCURACY:
            return result.choice
        case Metric.LOSS:
            return f"{value:.4g}"
        case _:
            return result.answer


def _or_missing(value: float | None) -> Any:
    return MISSING if value is None else value


def _charts(found: Report) -> list[Chart]:
    return [*_score_charts(found), *_difference_charts(found)]


def _score_charts(found: Report) -> Iterator[Chart]:
    import plotly.graph_objects as go

    for place, (name, scores) in enumerate(_by_scale(found.scores).items()):
        drawn = go.Figure()
        for subject in found.subjects:
            mine = [s for s in scores if s.subject == subject.label and s.mean is not None]
            drawn.add_bar(
                x=[f"{s.dataset}<br>{s.metric}" for s in mine],
                y=[s.mean for s in mine],
                name=subject.label,
                error_y={
                    "array": [(s.high or 0.0) - (s.mean or 0.0) for s in mine],
                    "arrayminus": [(s.mean or 0.0) - (s.low or 0.0) for s in mine],
                },
            )
        yield Chart(
            f"scores-{place}",
            name,
            "Means with 95 % intervals. Overlapping intervals do not mean that there is no "
            "difference: the comparisons, row by row, are sharper.",
            laid_out(drawn, "", name),
        )


def _by_scale(scores: Sequence[Score]) -> dict[str, list[Score]]:
    """Losses have an axis of their own: they are no shares."""
    scales: dict[str, list[Score]] = {}
    for score in scores:
        name = score.metric if lower_is_better(score.metric) else "share of 1"
        scales.setdefault(name, []).append(score)
    return scales


def _difference_charts(found: Report) -> Iterator[Chart]:
    import plotly.graph_objects as go

    if not found.comparisons:
        return
    drawn = go.Figure()
    for against in dict.fromkeys(c.against for c in found.comparisons):
        mine = [c for c in found.comparisons if c.against == against]
        drawn.add_scatter(
            x=[c.difference for c in mine],
            y=[f"{c.subject}, {c.metric} on {c.dataset}" for c in mine],
            mode="markers",
            name=f"against {against}",
            error_x={
                "array": [c.high - c.difference for c in mine],
                "arrayminus": [c.difference - c.low for c in mine],
            },
        )
    drawn.add_vline(x=0, line={"color": "#b9c3d0"})
    drawn.update_yaxes(autorange="reversed", automargin=True)
    yield Chart(
        "differences",
        "Differences",
        "Subject minus the one it is compared with, paired by row. An interval that crosses 0 "
        "shows no difference; of a loss less is better.",
        laid_out(drawn, "difference of means", ""),
    )
