"""What Ray Tune runs for each trial: an actor without torch, which lets the slot do the work."""

from typing import Any

import ray
from ray.tune import Trainable

from raylora.errors import JobFailed
from raylora.sweeps.orders import TrialReport, TrialState

STEP = "step"
"""Optimizer steps in a result; what schedulers count by."""


class ThinTrial(Trainable):
    """Each step of Tune's is the trial's next report; the actor is used for trial after trial."""

    def setup(self, config: dict[str, Any], mailbox: Any = None) -> None:
        """`mailbox` is the actor that the slot takes orders from."""
        self._mailbox = mailbox

    def step(self) -> dict[str, Any]:
        """Wait for the next report. Raises JobFailed where the trial has failed."""
        report: TrialReport = ray.get(self._mailbox.advance.remote(self.trial_id))
        if report.state is TrialState.FAILED:
            raise JobFailed(report.error)
        return {**report.metrics, STEP: report.step, "done": report.state.is_over}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Be another trial from now on."""
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """The slot has the trial's checkpoints."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """The slot has the trial's checkpoints."""
