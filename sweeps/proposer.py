"""Tells Ray Tune which settings to try next: recorded ones, those of a user, those of a source."""

import math
from collections import deque
from collections.abc import Mapping
from threading import Lock
from typing import Any

from ray.tune.search import Searcher

from raylora.sweeps.ledger import Ledger, Proposal
from raylora.sweeps.orders import TrialState
from raylora.sweeps.sources import Outcome, Source
from raylora.sweeps.thin_trial import PROPOSAL, STATE, STEP


class Proposer(Searcher):
    """A Searcher of Ray Tune's. Users ask for trials from another thread."""

    def __init__(self, source: Source, metric: str, at_once: int | None, ledger: Ledger) -> None:
        """`ledger` is of earlier attempts. at_once: trials that train."""
        super().__init__(metric=metric, mode=None)
        self._source = source
        self._value = metric
        self._at_once = at_once
        known = ledger.proposals
        self._waiting = deque(known)
        # Their reports are told again in the recorded order, so those that were open together
        # have to be so again, however few are left to train.
        self._over = frozenset(p.name for p in known if ledger.is_over(p.name))
        self._open_together = ledger.most_at_once
        self._number = max((int(proposal.name[1:]) for proposal in known), default=0)
        self._running: dict[str, Proposal] = {}
        self._lock = Lock()

    def add(self, settings: Mapping[str, Any], warm_from: str | None) -> str | None:
        """Have a user's own settings tried next; the trial's name, or None where all is over."""
        with self._lock:
            if not self._running:
                return None
            proposal = Proposal(self._name(), settings, warm_from=warm_from)
            self._waiting.append(proposal)
            return proposal.name

    def all(self) -> list[Proposal]:
        """Everything there is to try, for a scheduler that wants it at once."""
        with self._lock:
            return list(iter(self._next, None))

    def suggest(self, trial_id: str) -> Any:
        """See Searcher: settings, or FINISHED, or None for not now."""
        with self._lock:
            if self._is_full():
                return None
            proposal = self._next()
            if proposal is None:
                # While a trial runs a user can still ask for another.
                return None if self._running else self.FINISHED
            self._running[trial_id] = proposal
            return {PROPOSAL: proposal}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """See Searcher."""
        with self._lock:
            proposal = self._running.pop(trial_id, None)
        if proposal is None or proposal.token is None:
            return
        result = result or {}
        value = float(result.get(self._value, math.nan))
        self._source.over(
            proposal.token,
            Outcome(
                step=int(result.get(STEP, 0)),
                value=None if error or math.isnan(value) else value,
                whole=result.get(STATE) == TrialState.FINISHED,
            ),
        )

    def __getstate__(self) -> dict[str, Any]:
        """Ray Tune keeps a copy, which nobody reads: the ledger has what is needed."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """See Searcher; as for the copy."""

    def restore(self, checkpoint_path: str) -> None:
        """See Searcher."""

    def _is_full(self) -> bool:
        if self._at_once is None:
            return False
        training = [p for p in self._running.values() if p.name not in self._over]
        room = max(self._at_once, self._open_together)
        return len(training) >= self._at_once or len(self._running) >= room

    def _next(self) -> Proposal | None:
        if self._waiting:
            return self._waiting.popleft()
        found = self._source.next()
        if found is None:
            return None
        token, settings = found
        return Proposal(self._name(), settings, token)

    def _name(self) -> str:
        self._number += 1
        return f"t{self._number:02}"
