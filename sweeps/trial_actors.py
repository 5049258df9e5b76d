"""The actors of Ray Tune's trials, in the driver: all that a trial does is wait for the mailbox.

A process each costs 0.7 to 1.3 s of CPU time to start and 200 MB of memory, for as many trials as
are under way. Ray Tune 2.60 lets none of it be set, so the private manager of its actors is
replaced; tests/sweeps/test_trial_actors.py holds what of Ray's this relies on. Schedulers,
searchers and callbacks are Tune's own and see no difference.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from uuid import uuid4

import ray
from ray import ObjectRef
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.air.execution._internal.tracked_actor import TrackedActor
from ray.tune.execution import tune_controller

from raylora.sweeps.orders import TrialReport
from raylora.sweeps.thin_trial import ThinTrial

STEP_METHOD = "train"
"""What Tune calls for a trial's next result."""


@contextmanager
def trials_in_driver() -> Iterator[None]:
    """Within: a Tuner keeps trials of a ThinTrial in its own process."""
    controller: Any = tune_controller
    stock = controller.RayActorManager
    controller.RayActorManager = TrialActors
    try:
        yield
    finally:
        controller.RayActorManager = stock


class TrialActors(RayActorManager):
    """A trial is there as soon as it is asked for, and takes nothing of the cluster."""

    def add_actor(
        self,
        cls: Any,
        kwargs: Mapping[str, Any],
        resource_request: Any,
        *,
        on_start: Callable[..., None] | None = None,
        on_stop: Callable[..., None] | None = None,
        on_error: Callable[..., None] | None = None,
    ) -> TrackedActor:
        """See RayActorManager."""
        tracked = TrackedActor(uuid4().int, on_start=on_start, on_stop=on_stop, on_error=on_error)
        handle = _Handle(cls.__ray_metadata__.modified_class(**kwargs))
        live: dict[TrackedActor, Any] = self._live_actors_to_ray_actors_resources
        live[tracked] = (handle, None)
        ready = ray.put(None)
        self._tracked_actors_to_state_futures[tracked].add(ready)
        self._actor_state_events.track_future(
            ready, on_result=lambda _: self._actor_start_resolved(tracked, ready)
        )
        return tracked

    def get_live_actors_resources(self) -> dict[str, float]:
        """See RayActorManager."""
        return {}

    def cleanup(self) -> None:
        """See RayActorManager."""
        self._live_actors_to_ray_actors_resources.clear()
        super().cleanup()

    def _actor_task_resolved(self, tracked_actor_task: Any, result: Any) -> None:
        """A report of the mailbox becomes Tune's result here, where Tune hears of it."""
        if isinstance(result, TrialReport):
            tracked = tracked_actor_task._tracked_actor
            handle, _ = self._live_actors_to_ray_actors_resources[tracked]
            result = handle.trial.told(result)
        super()._actor_task_resolved(tracked_actor_task, result)

    def _cleanup_actor(self, tracked_actor: TrackedActor) -> None:
        self._cleanup_actor_futures(tracked_actor)
        del self._live_actors_to_ray_actors_resources[tracked_actor]

    def _try_kill_actor(self) -> bool:
        if not self._live_actors_to_kill:
            return False
        self._actor_stop_resolved(self._live_actors_to_kill.pop())
        return True


class _Handle:
    """What Tune has in place of an actor's handle."""

    def __init__(self, trial: ThinTrial) -> None:
        self.trial = trial

    def __getattr__(self, name: str) -> "_Method":
        return _Method(self.trial, name)


class _Method(NamedTuple):
    trial: ThinTrial
    name: str

    def remote(self, *args: Any, **kwargs: Any) -> "ObjectRef[Any]":
        """Its answer: that of the next result comes from the mailbox, any other is there."""
        if self.name == STEP_METHOD:
            return self.trial.advance()
        return ray.put(getattr(self.trial, self.name)(*args, **kwargs))
