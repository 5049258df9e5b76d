"""Population based training (Jaderberg et al., 2017): Ray Tune's own, over proposals.

Now and then the worst quarter of the trials goes on from the state of one of the best quarter and
with its settings, of which those that the state does not depend on are changed a little.
"""

import random
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray.tune.schedulers import PopulationBasedTraining

from raylora.config.population_rules import is_changeable
from raylora.config.search_space import Domain, Value, keys_in
from raylora.errors import RayloraError
from raylora.jobs.train.checkpoint_format import newest_first, newest_whole
from raylora.lora import atomic
from raylora.sweeps.proposals import Dice, Space, draw_one, settings
from raylora.sweeps.thin_trial import PROPOSAL, STEP

RESAMPLED = 0.25
"""Share of the changes that are drawn anew. As in Ray Tune, so are the factors."""
FACTORS = (0.8, 1.2)
TRIES = 3
"""To copy checkpoints, of which the other trial drops its oldest meanwhile."""


class Population(PopulationBasedTraining):
    """Ray Tune decides who goes on from whom; a trial keeps its name."""

    def __init__(self, space: Space, interval: int, seed: int) -> None:
        """interval: optimizer steps between looks at a trial."""
        super().__init__(
            time_attr=STEP,
            perturbation_interval=interval,
            custom_explore_fn=dict,  # it wants one; settings are changed below
            require_attrs=False,  # a trial that a user stops has no metric
            log_config=False,  # the ledger has it
        )
        random.seed(seed)  # Ray Tune draws the better trial from it
        self._space = space
        self._dice = Dice(seed)

    def _get_new_config(
        self, trial: Any, trial_to_clone: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        own, better = trial.config[PROPOSAL], trial_to_clone.config[PROPOSAL]
        found = varied(self._space, better.settings, self._dice)
        copies = own.copies + 1
        copy = replace(own, settings=found, copied_from=better.name, copies=copies)
        return {PROPOSAL: copy}, {}


def varied(space: Space, found: Mapping[str, Any], dice: Dice) -> dict[str, Any]:
    """Settings with a neighbouring or a fresh value for each key that may change on the way."""
    drawn: dict[str, Value] = {}
    for name, domain in space.items():
        values = [found[key] for key in keys_in(name) if key in found]
        if domain.times is None and len(values) == len(keys_in(name)):
            value = values[0] if len(values) == 1 else tuple(values)
            drawn[name] = _changed(name, domain, value, dice) if is_changeable(name) else value
    return {**found, **settings(space, drawn)}


def copy_state(better: Path, own: Path) -> int:
    """Give a trial all checkpoints of another one, in a folder that is not there yet.

    Returns the steps done at the newest. Raises RayloraError where there is none.
    """
    for _ in range(TRIES):
        newest = newest_whole(better)
        if newest is None:
            break
        shutil.rmtree(own, ignore_errors=True)  # of an attempt that was cut off
        try:
            with atomic.directory(own) as staged:
                for folder in newest_first(better):
                    shutil.copytree(folder, staged / folder.name)
        except (FileNotFoundError, shutil.Error):  # it has dropped one meanwhile
            continue
        return int(newest.name.partition("-")[2])
    raise RayloraError(f"no checkpoint to go on from in {better}")


def _changed(name: str, domain: Domain, value: Value, dice: Dice) -> Value:
    values = domain.values
    if dice.random.random() < RESAMPLED or (values is not None and value not in values):
        return draw_one(name, domain, dice)
    if values is not None:
        place = values.index(value)
        beside = [i for i in (place - 1, place + 1) if 0 <= i < len(values)]
        return values[dice.random.choice(beside)] if beside else value
    ends = domain.uniform or domain.loguniform
    assert ends is not None and isinstance(value, int | float)
    low, high = ends
    return min(high, max(low, value * dice.random.choice(FACTORS)))
