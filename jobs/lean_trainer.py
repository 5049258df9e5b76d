"""TorchTrainer with fewer processes beside its workers: Ray Train starts one for each helper.

A process costs 0.7 to 1.1 s of CPU time to start and 0.6 to 1.2 % of a core while it idles, which
is what two workers on two cores lack. Ray Train 2.60 lets none of it be set, so the one private
method that lists its helpers is overridden here; tests/jobs/test_lean_trainer.py holds what of
Ray's this relies on.
"""

from typing import Any

from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

CLEANER_INTERVAL_S = 10.0
"""How often the dashboard is asked whether the controller lives; Ray's own is every second."""
CLEANER_STOP_S = 0.5
"""The cleaner sleeps through its interval: at the end of a run it is ended, not waited for."""


class LeanTorchTrainer(TorchTrainer):
    """Does without the manager of Ray Data sets, which no run here has."""

    def _create_default_callbacks(self) -> list[Any]:
        kept = [
            callback
            for callback in super()._create_default_callbacks()
            if not isinstance(callback, DatasetsCallback | PlacementGroupCleanerCallback)
        ]
        cleaner = PlacementGroupCleanerCallback(
            check_interval_s=CLEANER_INTERVAL_S, stop_timeout=CLEANER_STOP_S
        )
        return [cleaner, *kept]
