from pathlib import Path

from benchmarks.sweep.core import Mode, Task

from raylora.config.train_spec import TrainSpec


def test_a_task_is_read_as_it_was_told(tmp_path: Path):
    spec = TrainSpec.model_validate({"lora": {"r": 2}, "training": {"max_steps": 3, "seed": 7}})
    task = Task("fp32", Mode.FUSED, {"t01": spec, "t02": TrainSpec()}, tmp_path)
    assert Task.parse(task.line()) == task


def test_each_trial_has_folders_of_its_own(tmp_path: Path):
    task = Task("a", Mode.ALONE, {}, tmp_path)
    places = [task.places(name).root for name in ("t01", "t02")]
    assert len(set(places)) == 2
    assert all(place.is_relative_to(tmp_path) for place in places)


def test_losses_are_those_of_the_log(tmp_path: Path):
    task = Task("a", Mode.ALONE, {}, tmp_path)
    logs = task.places("t01").logs
    logs.mkdir(parents=True)
    (logs / "metrics.jsonl").write_text('{"step": 1, "loss": 3.5}\n{"step": 2, "loss": 3.25}\n')
    assert task.losses("t01") == [3.5, 3.25]
