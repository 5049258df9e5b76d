"""The report of a sweep: `python -m raylora.sweeps.report.make RUN_ID --tracking-uri URI`.

Prints what the trials have shown as JSON; with --html FILE it also writes a self-contained page.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from raylora.config.sweep_spec import Mode
from raylora.jobs.answer import answer
from raylora.sweeps.report.findings import Findings, find
from raylora.sweeps.report.page import page
from raylora.tracking.nearest import not_found
from raylora.tracking.sweeps import get_sweep, histories

PAGE, DATA = "report.html", "report.json"
"""The files of a report."""


def main(argv: Sequence[str] | None = None) -> int:
    """Make the report; the exit code."""
    parser = argparse.ArgumentParser(prog="raylora.sweeps.report.make", description=__doc__)
    parser.add_argument("run_id")
    parser.add_argument("--tracking-uri", required=True)
    parser.add_argument("--metric", help="rank by another metric than the sweep's")
    parser.add_argument("--mode", type=Mode, help="whether less or more of it is better")
    parser.add_argument("--html", type=Path, help="also write a page")
    given = parser.parse_args(argv)

    def report() -> dict[str, Any]:
        found = findings(given.tracking_uri, given.run_id, given.metric, given.mode)
        if given.html:
            given.html.parent.mkdir(parents=True, exist_ok=True)
            given.html.write_text(page(found), encoding="utf-8")
        return found.as_json()

    return answer(report)


def import_ahead() -> None:
    """Import what a report computes and draws with: 0.8 to 1.9 s, for when nothing else is due."""
    for module in ("optuna.importance", "plotly.graph_objects"):
        importlib.import_module(module)


def write_report(uri: str, run_id: str, folder: Path) -> dict[str, Any]:
    """Write report.html and report.json into a folder; what the JSON holds."""
    found = findings(uri, run_id)
    told = found.as_json()
    del told["sweep"]["status"]  # the run that keeps the report is still open
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DATA).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    (folder / PAGE).write_text(page(found), encoding="utf-8")
    return told


def findings(
    uri: str, run_id: str, metric: str | None = None, mode: Mode | None = None
) -> Findings:
    """What a sweep has shown so far; metric and mode default to the sweep's own.

    Raises NotFound for an unknown sweep or a metric that no trial has, Unreachable.
    """
    details = get_sweep(uri, run_id)
    summary = details.summary
    summary = replace(summary, metric=metric or summary.metric, mode=mode or summary.mode)
    known = sorted({name for trial in details.trials for name in trial.metrics})
    if metric is not None and metric not in known:
        raise not_found("metric", metric, known, where=f"in the trials of {run_id}")
    details = replace(details, summary=summary)
    return find(details, histories(uri, details.trials, summary.metric))


if __name__ == "__main__":
    sys.exit(main())
