"""The driver of a sweep: `python -m raylora.sweeps.search spec.yaml --run-id ID`.

    read the data -> propose settings -> train them -> check and register the best -> report

Run again with the same id it goes on: trials that were over are told to Ray Tune as they were
recorded, the others continue from their checkpoints.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import Any

import ray

from raylora.cluster.capacity import Node
from raylora.cluster.events import NoticeEvent, ResultEvent, StageEvent, emit
from raylora.config.compose import read_resolved
from raylora.config.places import run_dir
from raylora.config.sweep_rules import with_settings
from raylora.config.sweep_spec import Scheduler, SweepSpec
from raylora.errors import JobFailed
from raylora.jobs.assignment import Assignment, make_folders
from raylora.jobs.data.survey import Surveyed, survey
from raylora.jobs.driver import connect, drive
from raylora.jobs.record import recorded
from raylora.sweeps.control import Control, listening
from raylora.sweeps.estimates import known_of
from raylora.sweeps.executors import Executors
from raylora.sweeps.finish import finish
from raylora.sweeps.ledger import LEDGER, Ledger
from raylora.sweeps.mailbox import Mailbox
from raylora.sweeps.orders import TrialReport
from raylora.sweeps.planner import Plan, plan
from raylora.sweeps.proposer import Proposer
from raylora.sweeps.report.make import import_ahead, write_report
from raylora.sweeps.report_order import report_order
from raylora.sweeps.sources import Source, source_of
from raylora.sweeps.trials import Trials
from raylora.sweeps.tuning import tune_trials
from raylora.tracking import sweep_tags as tags
from raylora.tracking.location import tracking_uri
from raylora.tracking.run import Run

REPORT = "report"
"""In the artifacts of the sweep's run."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job."""
    return drive(
        "raylora.sweeps.search",
        lambda given: search(
            read_resolved(given.spec, SweepSpec), given.run_id, given.config, given.commit
        ),
        argv,
    )


def search(spec: SweepSpec, run_id: str, config: str, commit: str = "") -> ResultEvent:
    """Train the trials of a sweep and register the best. The cluster is the one Ray finds.

    config: what stands after `raylora submit` for a training without a trial's settings. commit:
    of the git repository that the sweep was submitted from.
    """
    base = spec.base.model_copy(update={"outputs": str(Path(spec.outputs).absolute())})
    spec = spec.model_copy(update={"outputs": base.outputs})
    places = run_dir(base.outputs, base.tracking.experiment, run_id)
    make_folders(places)
    data = survey(base.data, Path.cwd())
    connect()
    uri = tracking_uri(base.tracking, base.outputs)
    with recorded(base, run_id, uri, data, commit) as run:
        sweep = Assignment(base, run_id, run.mlflow_run_id, uri, places)
        ledger = Ledger(places.metadata / LEDGER)
        source = source_of(spec, places.metadata, ledger.tokens)
        planned = _plan(spec, ledger, source, data)
        number = len(ledger.tokens) + source.left
        run.set_tags({tags.SWEEP: tags.search_facts(spec.sweep, number)})
        emit(StageEvent("trials", str(number)))
        trials = _train(spec, sweep, run, ledger, source, planned, config)
        best = trials.ranked()[0]
        if best.error:
            raise JobFailed(f"no trial came to an end; the best one's error: {best.error}")
        result = finish(spec.sweep, sweep, run, trials, best, planned.groups)
        emit(StageEvent("report"))
        run.settle(base.tracking.settle_seconds)
        _report(run, uri, run_id, places.artifacts / REPORT)
    emit(StageEvent("done"))
    emit(result)
    return result


def _plan(spec: SweepSpec, ledger: Ledger, source: Source, data: Sequence[Surveyed]) -> Plan:
    """How the trials that are not over will train."""
    waiting = [known.settings for known in ledger.proposals if not ledger.is_over(known.name)]
    first = [with_settings(spec.base, found) for found in (*waiting, *source.foreseen)]
    nodes = [
        Node(node["NodeManagerAddress"], node["Resources"])
        for node in ray.nodes()
        if node["Alive"]
    ]
    planned = plan(spec, first, nodes, known_of(first or [spec.base], data))
    for notice in planned.notices:
        emit(NoticeEvent(notice))
    return planned


def _train(
    spec: SweepSpec,
    sweep: Assignment,
    run: Run,
    ledger: Ledger,
    source: Source,
    planned: Plan,
    config: str,
) -> Trials:
    """Train trials until there is nothing left to try."""
    actor = ray.remote(Mailbox).options(num_cpus=0, max_concurrency=1000)
    mailbox: Any = actor.remote(_history(spec, ledger), report_order(spec.sweep))
    proposer = Proposer(source, spec.sweep.metric, planned.at_once, ledger)
    executors = Executors(planned, sweep, mailbox)
    trials = Trials(spec, sweep, mailbox, ledger, executors, config)
    control = Control(spec, proposer, trials, mailbox)
    try:
        with (
            executors.running(),
            listening(sweep.tracking_uri, lambda: run.mlflow_run_id, control.act),
        ):
            tune_trials(spec, proposer, mailbox, trials, sweep.places.metadata)
            # Workers take a second to leave, in which the driver has nothing to do.
            Thread(target=import_ahead, daemon=True).start()
    finally:
        trials.interrupted()
    return trials


def _report(run: Run, uri: str, run_id: str, folder: Path) -> None:
    """What the trials have shown. It can be made again, so the sweep stands without it."""
    try:
        write_report(uri, run_id, folder)
        run.log_artifacts(folder, REPORT)
    except Exception as error:
        again = f"raylora sweeps report {run_id}"
        emit(NoticeEvent(f"the report failed ({error}); `{again}` makes it again"))


def _history(spec: SweepSpec, ledger: Ledger) -> list[TrialReport]:
    """What Ray Tune is told again.

    Of a population only who is over: it has been changed on the way, and goes on from where it is.
    """
    reports = ledger.reports
    if spec.sweep.scheduler is not Scheduler.PBT:
        return reports
    return [report for report in reports if report.state.is_over and ledger.is_over(report.name)]


if __name__ == "__main__":
    sys.exit(main())
