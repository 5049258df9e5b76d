"""What of Ray Train's is left out, and what of its private methods that relies on."""

import inspect
from pathlib import Path
from typing import Any

from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import ENABLE_CONTROLLER_STRUCTURED_LOGGING_ENV_VAR
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2._internal.execution.worker_group.worker import RayTrainWorker

from raylora.config.places import run_dir
from raylora.jobs.lean_trainer import LeanTorchTrainer
from raylora.jobs.memory_watch import MemoryWatch
from raylora.jobs.trainer import ENVIRONMENT


def callbacks(trainer_class: type[TorchTrainer], tmp_path: Path) -> list[Any]:
    trainer = trainer_class(
        lambda config: None,
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(callbacks=[MemoryWatch(run_dir(tmp_path, "e", "r"))]),
    )
    return trainer._create_default_callbacks()


def test_managers_of_data_sets_and_of_lost_controllers_are_left_out(tmp_path: Path) -> None:
    stock = callbacks(TorchTrainer, tmp_path)
    lean = callbacks(LeanTorchTrainer, tmp_path)
    assert len(lean) == len(stock) - 2
    left_out = {type(one) for one in stock} - {type(one) for one in lean}
    assert left_out == {DatasetsCallback, PlacementGroupCleanerCallback}


def test_workers_are_given_what_rays_own_controller_gives_them() -> None:
    """But for the controller itself, which is no actor; Ray's workers take None for it."""
    assert TrainController.worker_group_cls is WorkerGroup
    own = inspect.signature(WorkerGroup._init_train_context_on_workers)
    assert list(own.parameters) == ["self", "workers", "sync_actor", "train_context_args"]
    taken = inspect.signature(RayTrainWorker.init_train_context).parameters
    assert {name for name, one in taken.items() if one.default is one.empty} == {
        "self",
        "train_run_context",
        "distributed_context",
        "synchronization_actor",
        "storage_context",
        "worker_callbacks",
        "controller_actor",
    }


def test_controllers_leave_the_drivers_logging_alone() -> None:
    """Two that set it up at the same time wait for each other's locks for ever."""
    assert ENVIRONMENT[ENABLE_CONTROLLER_STRUCTURED_LOGGING_ENV_VAR] == "0"
