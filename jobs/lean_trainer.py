"""TorchTrainer with fewer processes beside its workers: Ray Train starts one for each helper.

A process costs 0.7 to 1.1 s of CPU time to start and 0.6 to 1.2 % of a core while it idles, which
is what two workers on two cores lack. Ray Train 2.60 lets none of it be set, so the private method
that lists its helpers is overridden here, and the one that ends a helper;
tests/jobs/test_lean_trainer.py holds what of Ray's this relies on.
"""

from typing import Any

import ray
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

CLEANER_INTERVAL_S = 10.0
"""How often the dashboard is asked whether the controller lives; Ray's own is every second."""


class LeanTorchTrainer(TorchTrainer):
    """Does without the manager of Ray Data sets, which no run here has."""

    def _create_default_callbacks(self) -> list[Any]:
        kept = [
            callback
            for callback in super()._create_default_callbacks()
            if not isinstance(callback, DatasetsCallback | PlacementGroupCleanerCallback)
        ]
        return [ShortCleaner(check_interval_s=CLEANER_INTERVAL_S), *kept]


class ShortCleaner(PlacementGroupCleanerCallback):
    """Ends the cleaner with its run: asked to stop, it would sleep through its interval first."""

    def _stop_cleaner(self) -> None:
        cleaner: Any = self._cleaner
        if cleaner is not None:
            ray.kill(cleaner)
            self._cleaner = None
