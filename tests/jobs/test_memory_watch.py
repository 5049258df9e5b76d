from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError

from raylora.config.places import run_dir
from raylora.jobs.attempts import Attempts
from raylora.jobs.memory_watch import MemoryWatch


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (OutOfMemoryError("task was killed"), True),
        (RuntimeError("killed due to the node running low on memory"), True),
        (ActorDiedError(), False),
    ],
)
def test_the_next_attempt_learns_of_a_worker_that_ray_killed_for_memory(
    tmp_path: Path, error: Exception, short: bool
) -> None:
    places = run_dir(tmp_path, "e", "r")
    places.metadata.mkdir(parents=True)
    MemoryWatch(places).after_exception(None, {1: error})
    assert Attempts(places).take_memory_note() == short
