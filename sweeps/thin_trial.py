"""What Ray Tune runs for each trial: something without torch, which lets a slot do the work."""

from typing import Any

from ray import ObjectRef
from ray.tune import Trainable

from raylora.sweeps.ledger import Proposal
from raylora.sweeps.orders import TrialReport

PROPOSAL = "proposal"
"""In the config of a trial: a Proposal."""
STEP = "step"
"""Optimizer steps in a result; what schedulers count by."""
METRICS = "metrics"
"""What was reported, in a result: Tune adds times of its own beside it."""
STATE = "state"
"""The TrialState in a result."""


class ThinTrial(Trainable):
    """Each step of Tune's is the trial's next report; it serves trial after trial."""

    def setup(self, config: dict[str, Any], mailbox: Any = None) -> None:
        """`mailbox` is the actor that slots take orders from."""
        self._mailbox = mailbox

    def advance(self) -> "ObjectRef[TrialReport]":
        """Let the trial train; its next report. Raises JobFailed where it has failed."""
        proposal: Proposal = self.config[PROPOSAL]
        return self._mailbox.advance.remote(proposal.name)

    def told(self, report: TrialReport) -> dict[str, Any]:
        """Tune's result of a report."""
        self._report = report
        return self.train()

    def step(self) -> dict[str, Any]:
        """Of the report that it was told."""
        report = self._report
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
