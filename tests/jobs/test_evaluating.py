"""How rows are cut into shards: policy, without a cluster."""

from pathlib import Path

from raylora.config.evaluate_spec import AskedSpec, EvaluateSpec
from raylora.jobs.data.records import BadLine, Fault, Place
from raylora.jobs.evaluate.asked_rows import AskedRows
from raylora.jobs.evaluating import shards


def rows(name: str, count: int) -> AskedRows:
    faults = tuple(Fault(Place(name, line), BadLine("bad", "mend it")) for line in range(count))
    return AskedRows(name, name, faults, "digest")


def spec(*names: str, num_workers: int, batch_size: int) -> EvaluateSpec:
    return EvaluateSpec.model_validate(
        {
            "datasets": [AskedSpec(source=str(Path(name))) for name in names],
            "workers": {"num_workers": num_workers},
            "evaluation": {"batch_size": batch_size},
        }
    )


def test_shards_fill_batches_with_all_subjects() -> None:
    cut = shards(spec("a", num_workers=1, batch_size=12), [rows("a", 20)], subjects=3)
    assert [len(shard.rows) for shard in cut] == [8, 8, 4]
    assert [shard.start for shard in cut] == [0, 8, 16]


def test_every_worker_has_one_and_every_row_is_in_one() -> None:
    datasets = [rows("a", 9), rows("b", 1)]
    cut = shards(spec("a", "b", num_workers=4, batch_size=64), datasets, subjects=1)
    assert [(shard.dataset, len(shard.rows)) for shard in cut] == [
        *((0, 3), (0, 3), (0, 3)),
        (1, 1),
    ]
    for place, whole in enumerate(datasets):
        parts = [row for shard in cut if shard.dataset == place for row in shard.rows]
        assert tuple(parts) == whole.rows


def test_more_subjects_than_a_batch_still_get_a_row_each_time() -> None:
    cut = shards(spec("a", num_workers=1, batch_size=1), [rows("a", 2)], subjects=5)
    assert [len(shard.rows) for shard in cut] == [1, 1]
