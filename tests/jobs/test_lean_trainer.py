from pathlib import Path
from typing import Any

from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

from raylora.config.places import run_dir
from raylora.jobs.lean_trainer import CLEANER_INTERVAL_S, LeanTorchTrainer
from raylora.jobs.memory_watch import MemoryWatch


def callbacks(trainer_class: type[TorchTrainer], tmp_path: Path) -> list[Any]:
    trainer = trainer_class(
        lambda config: None,
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(callbacks=[MemoryWatch(run_dir(tmp_path, "e", "r"))]),
    )
    return trainer._create_default_callbacks()


def test_only_the_manager_of_data_sets_is_left_out(tmp_path: Path) -> None:
    stock = callbacks(TorchTrainer, tmp_path)
    lean = callbacks(LeanTorchTrainer, tmp_path)
    assert len(lean) == len(stock) - 1
    left_out = {type(one) for one in stock} - {type(one) for one in lean}
    # The cleaner is there with an end of its own.
    assert left_out == {DatasetsCallback, PlacementGroupCleanerCallback}
    assert "_stop_cleaner" in vars(PlacementGroupCleanerCallback)


def test_the_dashboard_is_asked_for_the_controller_every_ten_seconds(tmp_path: Path) -> None:
    [cleaner] = [
        callback
        for callback in callbacks(LeanTorchTrainer, tmp_path)
        if isinstance(callback, PlacementGroupCleanerCallback)
    ]
    assert cleaner._check_interval_s == CLEANER_INTERVAL_S
