"""The report as one HTML page: styles, scripts, data and plotly.js are in it."""

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from html import escape
from typing import Any

from raylora.sweeps.report.charts import Chart, charts
from raylora.sweeps.report.findings import Findings
from raylora.sweeps.report.page_assets import SCRIPT, STYLE
from raylora.tracking.sweep_facts import TrialRecord

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; "
    # plotly.js makes the shaders of parallel coordinates with new Function.
    "script-src 'unsafe-inline' 'unsafe-eval'"
)
"""Lets a browser refuse whatever would be fetched."""


def page(found: Findings) -> str:
    """The whole page, about 5 MB, nearly all of it plotly.js."""
    from plotly.offline import get_plotlyjs
    from plotly.utils import PlotlyJSONEncoder

    drawn = charts(found)
    figures = json.dumps(
        {chart.id: chart.figure.to_plotly_json() for chart in drawn}, cls=PlotlyJSONEncoder
    )
    title = escape(f"Sweep {found.sweep.name}")
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title><style>{STYLE}</style></head><body>",
            f"<header><h1>{title}</h1><p>{escape(found.sweep.run_id)}</p></header><main>",
            _facts(found),
            *_best(found),
            _table(found),
            *_notes(found),
            *map(_plot, drawn),
            "</main>",
            f'<script type="application/json" id="figures">{_in_script(figures)}</script>',
            f"<script>{get_plotlyjs()}</script>",
            f"<script>{SCRIPT}</script>",
            "</body></html>",
        ]
    )


def _facts(found: Findings) -> str:
    sweep = found.sweep
    states = ", ".join(f"{count} {state}" for state, count in sweep.states.items())
    # No status: the driver writes the report while its sweep's run is still open.
    facts = {
        "metric": f"{sweep.metric} ({sweep.mode})",
        "search": f"{sweep.searcher}, {sweep.scheduler}",
        "trials": f"{sum(sweep.states.values())} of {sweep.trials}: {states or 'none yet'}",
        "started": f"{sweep.started:%Y-%m-%d %H:%M} UTC",
        "duration": str(timedelta(seconds=round(sweep.duration_s))),
        "registered": sweep.best_adapter or "nothing",
        "written": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }
    parts = (f"<div><dt>{key}</dt><dd>{escape(value)}</dd></div>" for key, value in facts.items())
    return f'<dl class="facts">{"".join(parts)}</dl>'


def _best(found: Findings) -> Iterator[str]:
    best = found.best
    if best is None:
        yield '<section class="best"><h2>No trial has a result</h2></section>'
        return
    settings = ", ".join(f"{key}={value}" for key, value in best.settings.items())
    yield (
        f'<section class="best"><h2>Best trial: {escape(best.name)}</h2>'
        f"<p>{escape(found.sweep.metric)} <strong>{_figure(found.value(best))}</strong> "
        f"after {best.step} steps, {escape(settings)}</p>"
        f"{_again(best)}</section>"
    )


def _again(best: TrialRecord) -> str:
    if best.submit:
        return f"<p>To train it again:</p><pre>{escape(best.submit)}</pre>"
    steps = "; ".join(
        f"from {copy['from']} after step {copy['step']} with "
        + ", ".join(f"{key}={value}" for key, value in copy["settings"].items())
        for copy in best.copies
    )
    return f"<p>It went on {escape(steps)}.</p>"


def _table(found: Findings) -> str:
    keys = list(dict.fromkeys(key for trial in found.trials for key in trial.settings))
    head = ["rank", "trial", "state", "steps", found.sweep.metric, *keys]
    head += ["adapter MB", "seconds", "mode", "error"]
    rows = (
        _row([rank, *_cells(found, trial, keys)]) for rank, trial in enumerate(found.trials, 1)
    )
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    return (
        "<section><h2>Trials</h2><p>The best first: those that went further count more. "
        "Click a heading to sort by it.</p>"
        f'<div class="wide"><table id="trials"><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _cells(found: Findings, trial: TrialRecord, keys: Sequence[str]) -> Iterable[Any]:
    size = trial.adapter_bytes
    yield from (trial.name, trial.state.value, trial.step, found.value(trial))
    yield from (trial.settings.get(key) for key in keys)
    yield from (size and round(size / 1e6, 3), round(trial.duration_s, 1), trial.mode, trial.error)


def _row(cells: Iterable[Any]) -> str:
    return f"<tr>{''.join(f'<td>{escape(_figure(cell))}</td>' for cell in cells)}</tr>"


def _notes(found: Findings) -> Iterator[str]:
    """What a reader may look for in vain."""
    notes: list[str] = []
    if found.importance.note:
        notes.append(f"No figures for the importance of keys: {found.importance.note}.")
    if not found.tradeoffs[0].points:
        notes.append("The sizes of the adapters are not known.")
    yield from (f'<p class="note">{escape(note)}</p>' for note in notes)


def _plot(chart: Chart) -> str:
    return (
        f"<section><h2>{escape(chart.title)}</h2><p>{escape(chart.caption)}</p>"
        f'<div class="plot" data-figure="{chart.id}"></div></section>'
    )


def _figure(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _in_script(data: str) -> str:
    """JSON that cannot end the script element it stands in."""
    return data.replace("</", "<\\/")
