"""Sweeps and their trials as tables. Trials come as mappings, with the fields of a TrialRecord."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from raylora.cli.output import make_table
from raylora.tracking.sweep_facts import SweepDetails, SweepSummary

Row = Mapping[str, Any]
ERROR_WIDTH = 60
"""Characters of a reason in a table; JSON has all of it."""
COST_NAMES = {"adapter_bytes": "adapter bytes", "duration_s": "seconds"}


def list_table(sweeps: Sequence[SweepSummary]) -> Table:
    """One line a sweep."""
    columns = ("sweep", "name", "experiment", "status", "started", "duration")
    columns += ("metric", "trials", "best", "adapter")
    return make_table(
        columns,
        (
            (
                sweep.run_id,
                sweep.name,
                sweep.experiment,
                sweep.status.value,
                f"{sweep.started:%Y-%m-%d %H:%M:%S}Z",
                str(timedelta(seconds=round(sweep.duration_s))),
                f"{sweep.metric} ({sweep.mode})",
                _states(sweep),
                sweep.best_trial,
                sweep.best_adapter,
            )
            for sweep in sweeps
        ),
    )


def status(details: SweepDetails) -> dict[str, Any]:
    """A sweep with its trials ranked: what `sweeps status` prints as JSON."""
    summary, trials = details.summary, details.ranked
    best = next((t for t in trials if not t.error and summary.metric in t.metrics), None)
    return {
        "sweep": summary,
        "best": best
        and {"trial": best.name, "value": best.metrics[summary.metric], "submit": best.submit},
        "trials": trials,
    }


def status_tables(details: SweepDetails) -> Group:
    """The same for people."""
    summary, best = details.summary, status(details)["best"]
    facts: dict[str, object] = {
        "sweep": summary.run_id,
        "name": summary.name,
        "status": summary.status.value,
        "search": f"{summary.searcher}, {summary.scheduler}",
        "metric": f"{summary.metric} ({summary.mode})",
        "trials": _states(summary),
        "duration": str(timedelta(seconds=round(summary.duration_s))),
        "registered": summary.best_adapter,
    }
    parts: list[RenderableType] = [
        make_table(("key", "value"), facts.items()),
        Text(),
        trials_table([asdict(trial) for trial in details.ranked], summary.metric),
    ]
    if best:
        parts.append(Text(f"\n{_again(best['submit'])}", overflow="fold"))
    return Group(*parts)


def trials_table(trials: Sequence[Row], metric: str) -> Table:
    """One line a trial, in the order given, with its value of each searched key."""
    keys = list(dict.fromkeys(key for trial in trials for key in trial["settings"]))
    columns = ("trial", "state", "steps", metric, *keys, "mode", "seconds", "error")
    return make_table(
        columns,
        (
            (
                trial["name"],
                trial["state"],
                trial["step"],
                trial["metrics"].get(metric),
                *(trial["settings"].get(key) for key in keys),
                trial["mode"] or None,
                round(trial["duration_s"], 1),
                _brief(trial["error"]),
            )
            for trial in trials
        ),
    )


def report_tables(found: Mapping[str, Any]) -> Group:
    """What the report's program has found: ranked trials, importance of keys, Pareto fronts."""
    metric, compared = found["sweep"]["metric"], found["compared"]
    parts: list[RenderableType] = [trials_table(found["trials"], metric), Text()]
    importance = found["importance"]
    if importance["note"]:
        parts.append(Text(f"importance of keys: {importance['note']}\n"))
    else:
        shares = {**importance["shares"], "two keys or more together": importance["interplay"]}
        where = f"{len(compared['values'])} trials at step {compared['step']}"
        parts += [
            Text(f"importance: share of the variation of {metric}, {where}"),
            make_table(("key", "share"), ((key, f"{share:.0%}") for key, share in shares.items())),
            Text(),
        ]
    for tradeoff in found["tradeoffs"]:
        cost = COST_NAMES[tradeoff["cost"]]
        points = tradeoff["points"]
        rows = [(name, *points[name]) for name in tradeoff["front"]]
        title = Text(f"Pareto front: {metric} against {cost}")
        parts += [title, make_table(("trial", cost, metric), rows), Text()] if rows else []
    if found["best"]:
        parts.append(Text(_again(found["best"]["submit"]), overflow="fold"))
    return Group(*parts)


def _again(submit: str) -> str:
    if not submit:
        return "the best one's settings were changed on the way: see its copies in -o json"
    return f"the best again:  {submit}"


def _states(sweep: SweepSummary) -> str:
    begun = ", ".join(f"{count} {state}" for state, count in sweep.states.items())
    return f"{sum(sweep.states.values())}/{sweep.trials}" + (f": {begun}" if begun else "")


def _brief(reason: str) -> str | None:
    line = reason.strip().partition("\n")[0]
    return (line if len(line) <= ERROR_WIDTH else f"{line[:ERROR_WIDTH]}...") or None
