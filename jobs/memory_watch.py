"""Runs beside Ray's controller: writes down where Ray killed a worker because memory ran out."""

from typing import Any

from ray.exceptions import OutOfMemoryError
from ray.train import UserCallback

from raylora.config.places import RunPlaces
from raylora.jobs.attempts import Attempts

_MONITOR = "running low on memory"
"""In what Ray says of a worker that its memory monitor killed."""


class MemoryWatch(UserCallback):
    """Tells the next attempt of a run that memory was short."""

    def __init__(self, places: RunPlaces) -> None:
        self._attempts = Attempts(places)

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Look at why workers were lost."""
        for rank, error in sorted(worker_exceptions.items()):
            if isinstance(error, OutOfMemoryError) or _MONITOR in str(error):
                self._attempts.memory_ran_out(f"Ray killed worker {rank}: memory was short")
