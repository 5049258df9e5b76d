"""The trials of a sweep as the driver knows them: their specs, folders and MLflow runs."""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray

from raylora.cluster.events import NoticeEvent, emit
from raylora.config.places import RunPlaces, run_dir
from raylora.config.sweep_rules import with_settings
from raylora.config.sweep_spec import Scheduler, SweepSpec
from raylora.errors import NotFound, RayloraError
from raylora.jobs.assignment import Assignment, make_folders
from raylora.jobs.record import open_record
from raylora.lora.adapter_config import WEIGHTS
from raylora.sweeps.command_line import submit_line
from raylora.sweeps.executors import Executors
from raylora.sweeps.ledger import Ledger, Proposal
from raylora.sweeps.orders import Begin, TrialReport, TrialState
from raylora.sweeps.population import copy_state
from raylora.sweeps.warm_start import start_warm
from raylora.tracking import sweep_tags as tags
from raylora.tracking.ranking import ranked
from raylora.tracking.run import RunStatus
from raylora.tracking.spooling.tracked import TrackedRun
from raylora.tracking.sweep_facts import TrialStatus
from raylora.tracking.sweeps import get_sweep

KNOWN_SECONDS = 1.0
"""A trial waits so long for MLflow's id of its run, which its adapter names."""
NOWHERE = ""
"""The slot of trials that are over."""


@dataclass(frozen=True)
class Trial:
    """One setting, and where what becomes of it is kept."""

    assignment: Assignment
    run: TrackedRun


class Trials:
    """A Watcher that opens a run for each trial and lets a slot know what it trains."""

    def __init__(
        self,
        spec: SweepSpec,
        sweep: Assignment,
        mailbox: Any,
        ledger: Ledger,
        slots: Executors,
        config: str,
    ) -> None:
        """`sweep` is the sweep's own assignment: its run is the parent of all.

        config: what stands after `raylora submit` for a training without a trial's settings.
        """
        self._spec = spec
        self._sweep = sweep
        self._mailbox = mailbox
        self._ledger = ledger
        self._slots = slots
        self._config = config
        self._proposals: dict[str, Proposal] = {}
        self._open: dict[str, TrackedRun] = {}
        """The runs of the trials that are not over."""
        self._last: dict[str, TrialReport] = {}
        known = [proposal.name for proposal in ledger.proposals]
        self._not_closed = _not_closed(sweep, known) if known else frozenset[str]()
        """Trials whose driver was lost before it could tell MLflow of their end."""

    def began(self, proposal: Proposal) -> None:
        """See Watcher."""
        name, known = proposal.name, self._proposals.get(proposal.name)
        if known is not None:
            if known.copies != proposal.copies:  # else it was paused
                self._go_on_from_another(proposal)
            return
        self._proposals[name] = proposal
        self._ledger.began(proposal)
        if self._ledger.is_over(name):
            if name in self._not_closed:
                self._open[name] = self.open(name).run
            self._announce(self._assignment(name, ""), name, NOWHERE)
            return
        trial = self.open(name)
        slot = self._slot_for(proposal, trial)
        mode = "isolated" if slot == name else "fused"
        trial.run.set_tags({tags.STATE: TrialStatus.RUNNING.value, tags.MODE: mode})
        self._open[name] = trial.run
        self._announce(trial.assignment, name, slot)

    def reported(self, report: TrialReport) -> None:
        """See Watcher."""
        self._last[report.name] = report
        if not self._ledger.reported(report):
            return
        self._open[report.name].set_tags({tags.STEP: report.step})
        value = report.metrics.get(self._spec.sweep.metric)
        shown = "" if value is None else f"{self._spec.sweep.metric} {value:.4f} "
        emit(NoticeEvent(f"trial {report.name}: {shown}at step {report.step}"))

    def ended(self, name: str, error: str) -> None:
        """See Watcher. What lost its workers is tried again when the sweep is resumed."""
        report: TrialReport = ray.get(self._mailbox.end.remote(name))
        self._slots.left(name)
        failed = report.state is TrialState.FAILED
        if error and not failed:
            report = replace(report, state=TrialState.FAILED, error=error)
        self._last[name] = report
        if not error or failed:
            self._ledger.ended(report)
        if name in self._open:
            self._close(report)
            del self._open[name]

    def interrupted(self) -> None:
        """The sweep ends before its trials: their runs are KILLED, until it is resumed."""
        for run in self._open.values():
            run.finish(RunStatus.KILLED)
        self._open.clear()

    def ranked(self) -> Sequence[TrialReport]:
        """What the trials have come to, the best first."""
        search = self._spec.sweep
        return ranked(self._last.values(), search.metric, search.mode)

    def settings(self, name: str) -> Mapping[str, Any]:
        """The settings of a trial that has begun. Raises NotFound."""
        if name not in self._proposals:
            known = ", ".join(self._proposals)
            raise NotFound(f"there is no trial {name}", hint=f"trials: {known}")
        return self._proposals[name].settings

    def open(self, name: str) -> Trial:
        """A trial and its run, to be written to; close it with run.finish."""
        assignment = self._assignment(name, "")
        make_folders(assignment.places)
        found = {tags.TRIAL: name, **self._settings_tags(name)}
        run = open_record(
            assignment.spec,
            assignment.run_id,
            assignment.tracking_uri,
            found,
            parent=self._sweep.run_id,
        )
        run.known_within(KNOWN_SECONDS)
        return Trial(replace(assignment, mlflow_run_id=run.mlflow_run_id), run)

    def _go_on_from_another(self, copy: Proposal) -> None:
        """A trial of a population takes over another one's state and settings."""
        name, better = copy.name, copy.copied_from
        assert better is not None
        ray.get(self._mailbox.end.remote(name))
        before, self._proposals[name] = self._proposals[name], copy
        child = self._assignment(name, self._open[name].mlflow_run_id)
        try:
            # What is copied lies in a folder of its own: the ledger decides which one counts.
            step = copy_state(
                self._assignment(better, "").places.checkpoints, child.places.checkpoints
            )
        except RayloraError as error:
            ray.get(self._mailbox.close.remote(error.message, name))
            self._announce(child, name, name)
            return
        self._ledger.copied(copy, step)
        old = replace(child.places, series=before.copies).checkpoints
        shutil.rmtree(old, ignore_errors=True)
        self._open[name].set_tags(self._settings_tags(name))
        emit(NoticeEvent(f"trial {name}: goes on from {better} at step {step}"))
        self._announce(child, name, self._slots.again(name, child.spec))

    def _settings_tags(self, name: str) -> dict[str, str]:
        settings, copies = dict(self._proposals[name].settings), self._ledger.copies[name]
        return {
            tags.SETTINGS: json.dumps(settings),
            # No single line changes settings on the way.
            tags.SUBMIT: "" if copies else submit_line(self._config, settings),
            tags.COPIES: json.dumps(copies),
        }

    def _announce(self, assignment: Assignment, name: str, slot: str) -> None:
        search = self._spec.sweep
        at_saves = search.scheduler is Scheduler.PBT
        begin = Begin(name, assignment, search.metric, search.report_steps, at_saves)
        ray.get(self._mailbox.announce.remote(begin, slot))

    def _slot_for(self, proposal: Proposal, trial: Trial) -> str:
        """Where it trains; what cannot begin fails by itself, and takes no other with it."""
        child = trial.assignment
        try:
            if proposal.warm_from is not None:
                parent = self._assignment(proposal.warm_from, "")
                start_warm(parent.spec, parent.places, child.spec, child.places)
            return self._slots.slot_of(proposal.name, child.spec)
        except RayloraError as error:
            ray.get(self._mailbox.close.remote(error.message, proposal.name))
            return proposal.name

    def _assignment(self, name: str, mlflow_run_id: str) -> Assignment:
        spec = with_settings(self._spec.base, self._proposals[name].settings)
        run_id = f"{self._sweep.run_id}-{name}"
        places = run_dir(spec.outputs, spec.tracking.experiment, run_id)
        places = replace(places, series=self._proposals[name].copies)
        return Assignment(spec, run_id, mlflow_run_id, self._sweep.tracking_uri, places)

    def _close(self, report: TrialReport) -> None:
        """Its worker has logged what it reported, unless it was lost before it could."""
        run = self._open[report.name]
        run.log_metrics(report.metrics, report.step)
        places = self._assignment(report.name, "").places
        run.set_tags(
            {
                tags.STATE: report.state.value,
                tags.STEP: report.step,
                tags.ERROR: report.error,
                **_size(places),
            }
        )
        failed = report.state is TrialState.FAILED
        run.finish(RunStatus.FAILED if failed else RunStatus.FINISHED)
        if failed:
            emit(NoticeEvent(f"trial {report.name} failed: {report.error}"))


def _not_closed(sweep: Assignment, known: Iterable[str]) -> frozenset[str]:
    """Where the store cannot say, all: to close one again does no harm."""
    try:
        found = get_sweep(sweep.tracking_uri, sweep.run_id).trials
    except RayloraError:
        return frozenset(known)
    return frozenset(t.name for t in found if t.ended is None or not t.state.is_over)


def _size(places: RunPlaces) -> dict[str, int]:
    """Of a trial that was trained to its end."""
    weights = places.adapter / WEIGHTS
    return {tags.ADAPTER_BYTES: weights.stat().st_size} if weights.exists() else {}
