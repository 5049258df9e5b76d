"""What a sweep has done so far, on disk: it may end at any moment and goes on from there."""

import json
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raylora.sweeps.orders import TrialReport, TrialState

LEDGER = "trials.jsonl"
"""In the sweep's metadata: one line for each thing that has happened, in order."""
BEGAN, REPORTED, ENDED, COPIED = "began", "reported", "ended", "copied"


@dataclass(frozen=True)
class Proposal:
    """Settings to try."""

    name: str
    settings: Mapping[str, Any]
    """Values by key of the spec."""
    token: int | None = None
    """By which the searcher knows it; None for a clone."""
    warm_from: str | None = None
    """Trial whose adapter it starts from."""
    copied_from: str | None = None
    """Trial of its population that it has gone on from last."""
    copies: int = 0
    """How often it has gone on from another one."""


class Ledger:
    """Proposals that began, their reports and their ends."""

    def __init__(self, path: Path) -> None:
        """Read what there is. A line that was cut off by the end of a machine is dropped."""
        self._path = path
        self.proposals: list[Proposal] = []
        """Those that have begun, in order."""
        self.reports: list[TrialReport] = []
        """What trials said, and at last came to, in order."""
        self.copies: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        """By trial: from whom it went on, after how many steps, and with which settings."""
        self.most_at_once = 0
        """Trials that had begun and were not over, when there were most of them."""
        self._ended: set[str] = set()
        self._last_step: dict[str, int] = {}
        for line in _lines(path):
            self._take_in(line)

    @property
    def tokens(self) -> list[int]:
        """Of the proposals that came from the searcher."""
        return [known.token for known in self.proposals if known.token is not None]

    def began(self, proposal: Proposal) -> None:
        """A trial is about to take its first step; nothing happens where it is known."""
        if proposal.name not in {known.name for known in self.proposals}:
            self._write({"event": BEGAN, **asdict(proposal)})

    def copied(self, proposal: Proposal, step: int) -> None:
        """A trial goes on from another one's state after `step` steps, with these settings."""
        self._write({"event": COPIED, "step": step, **asdict(proposal)})

    def reported(self, report: TrialReport) -> bool:
        """A trial has reported, and is not over; False where that is known."""
        known = report.step <= self._last_step.get(report.name, -1)
        if report.state.is_over or self.is_over(report.name) or known:
            return False
        self._write({"event": REPORTED, **asdict(report)})
        return True

    def ended(self, report: TrialReport) -> None:
        """A trial has ended for good: it is not run again."""
        if not self.is_over(report.name):
            self._write({"event": ENDED, **asdict(report)})

    def is_over(self, name: str) -> bool:
        """Whether a trial has ended for good."""
        return name in self._ended

    def _write(self, line: Mapping[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._take_in(line)

    def _take_in(self, line: Mapping[str, Any]) -> None:
        content: dict[str, Any] = dict(line)
        event = content.pop("event")
        if event == BEGAN:
            self.proposals.append(Proposal(**content))
            self.most_at_once = max(self.most_at_once, len(self.proposals) - len(self._ended))
            return
        if event == COPIED:
            step = content.pop("step")
            changed = Proposal(**content)
            self.copies[changed.name].append(
                {"from": changed.copied_from, "step": step, "settings": changed.settings}
            )
            names = [known.name for known in self.proposals]
            self.proposals[names.index(changed.name)] = changed
            self._last_step.pop(changed.name, None)  # the other one may not be as far
            return
        content["state"] = TrialState(content["state"])
        report = TrialReport(**content)
        self.reports.append(report)
        if event == REPORTED:
            self._last_step[report.name] = report.step
        else:
            self._ended.add(report.name)


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    found: list[dict[str, Any]] = []
    whole = 0
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            os.truncate(path, whole)  # the next line must not be written behind its half
            break
        found.append(json.loads(line))
        whole += len(line)
    return found
