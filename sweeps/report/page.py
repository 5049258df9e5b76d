"""The report as one HTML page."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from html import escape
from typing import Any

from raylora.jobs.html_page import document, facts, figure, note, table
from raylora.sweeps.report.charts import charts
from raylora.sweeps.report.findings import Findings
from raylora.tracking.sweep_facts import TrialRecord


def page(found: Findings) -> str:
    """The whole page."""
    parts = [_facts(found), *_best(found), _table(found), *_notes(found)]
    return document(f"Sweep {found.sweep.name}", found.sweep.run_id, parts, charts(found))


def _facts(found: Findings) -> str:
    sweep = found.sweep
    states = ", ".join(f"{count} {state}" for state, count in sweep.states.items())
    # No status: the driver writes the report while its sweep's run is still open.
    known = {
        "metric": f"{sweep.metric} ({sweep.mode})",
        "search": f"{sweep.searcher}, {sweep.scheduler}",
        "trials": f"{sum(sweep.states.values())} of {sweep.trials}: {states or 'none yet'}",
        "started": f"{sweep.started:%Y-%m-%d %H:%M} UTC",
        "duration": str(timedelta(seconds=round(sweep.duration_s))),
        "registered": sweep.best_adapter or "nothing",
        "written": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }
    return facts(known)


def _best(found: Findings) -> Iterator[str]:
    best = found.best
    if best is None:
        yield '<section class="best"><h2>No trial has a result</h2></section>'
        return
    settings = ", ".join(f"{key}={value}" for key, value in best.settings.items())
    yield (
        f'<section class="best"><h2>Best trial: {escape(best.name)}</h2>'
        f"<p>{escape(found.sweep.metric)} <strong>{figure(found.value(best))}</strong> "
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
    return table(
        "Trials",
        "The best first: those that went further count more. Click a heading to sort by it.",
        head,
        ([rank, *_cells(found, trial, keys)] for rank, trial in enumerate(found.trials, 1)),
        id="trials",
        style="first-is-best",
    )


def _cells(found: Findings, trial: TrialRecord, keys: Sequence[str]) -> Iterable[Any]:
    size = trial.adapter_bytes
    yield from (trial.name, trial.state.value, trial.step, found.value(trial))
    yield from (trial.settings.get(key) for key in keys)
    yield from (size and round(size / 1e6, 3), round(trial.duration_s, 1), trial.mode, trial.error)


def _notes(found: Findings) -> Iterator[str]:
    """What a reader may look for in vain."""
    notes: list[str] = []
    if found.importance.note:
        notes.append(f"No figures for the importance of keys: {found.importance.note}.")
    if not found.tradeoffs[0].points:
        notes.append("The sizes of the adapters are not known.")
    yield from map(note, notes)
