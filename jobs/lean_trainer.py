"""TorchTrainer that the driver controls: beside its workers there is one process, and not three.

A process costs 0.7 to 1.1 s of CPU time to start and 0.6 to 1.2 % of a core while it idles, which
is what two workers on two cores lack: a sweep over 16 settings on two bases takes 31 s so, 36 with
Ray's own controllers and cleaners. Ray Train 2.60 lets none of it be set, so private methods are
overridden here; tests/jobs/test_lean_trainer.py holds what of Ray's this relies on.
"""

import asyncio
from contextlib import suppress
from typing import Any

import ray
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.worker_group import WorkerGroup

NOT_NEEDED = (
    # No run here has data sets of Ray Data, which it manages.
    DatasetsCallback,
    # It ends a claim whose controller is gone; the driver's own end with its job.
    PlacementGroupCleanerCallback,
)


class LeanTorchTrainer(TorchTrainer):
    """Interrupted, it gives back what it holds of the cluster before it raises."""

    def _create_default_callbacks(self) -> list[Any]:
        return [
            callback
            for callback in super()._create_default_callbacks()
            if not isinstance(callback, NOT_NEEDED)
        ]

    def _initialize_and_run_controller(self, **given: Any) -> Any:
        controller = _Controller(**given)
        try:
            asyncio.run(controller.run())
        except KeyboardInterrupt:
            with suppress(TypeError):  # it would leave its actor now, and is in none
                asyncio.run(controller.abort())
            raise
        return controller.get_result()


class _WorkerGroup(WorkerGroup):
    def _init_train_context_on_workers(
        self, workers: Any, sync_actor: Any, train_context_args: Any
    ) -> None:
        """As Ray's, for workers that never ask their controller: it is no actor."""
        given: Any = {
            "train_run_context": self._train_run_context,
            "synchronization_actor": sync_actor,
            "storage_context": self._storage_context,
            "worker_callbacks": self._worker_callbacks_to_propagate,
            "controller_actor": None,
        }
        own = [
            {name: values[i] for name, values in train_context_args.items()}
            for i in range(len(workers))
        ]
        ray.get(
            [
                worker.actor.init_train_context.remote(
                    distributed_context=worker.distributed_context, **given, **its
                )
                for worker, its in zip(workers, own, strict=True)
            ]
        )
        self._decorate_worker_log_file_paths(workers)


class _Controller(TrainController):
    worker_group_cls = _WorkerGroup
