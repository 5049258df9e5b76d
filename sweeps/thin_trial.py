"""What Ray Tune runs for each trial: an actor without torch, which lets a slot do the work."""

from typing import Any

import ray
from ray.tune import Trainable

from raylora.errors import JobFailed
from raylora.sweeps.ledger import Proposal
from raylora.sweeps.orders import TrialReport, TrialState

PROPOSAL = "proposal"
"""In the config of a trial: a Proposal."""
STEP = "step"
"""Optimizer steps in a result; what schedulers count by."""
METRICS = "metrics"
"""What was reported, in a result: Tune adds times of its own beside it."""
STATE = "state"
"""The TrialState in a result."""


class ThinTrial(Trainable):
    """Each step of Tune's is the trial's next report; the actor is used for trial after trial."""

    def setup(self, config: dict[str, Any], mailbox: Any = None) -> None:
        """`mailbox` is the actor that slots take orders from."""
        self._mailbox = mailbox

    def step(self) -> dict[str, Any]:
        """Wait for the next report. Raises JobFailed where the trial has failed."""
        proposal: Proposal = self.config[PROPOSAL]
        report: TrialReport = ray.get(self._mailbox.advance.remote(proposal.name))
        if report.state is TrialState.FAILED:
            raise JobFailed(report.error)
        return {
            **report.metrics,
            METRICS: dict(report.metrics),
            STEP: report.step,
            STATE: report.state.value,
            "done": report.state.is_over,
        }

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Be another trial from now on: Tune has set the config."""
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """The slot has the trial's checkpoints."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """The slot has the trial's checkpoints."""
