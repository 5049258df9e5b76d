"""Settings from a search space: drawn one by one, or all combinations of a grid.

What a searcher proposes is `drawn`: a value for each entry of the space that applies. `settings`
turns that into keys of a TrainSpec.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from raylora.config.search_space import Domain, Value, keys_in, settled

Drawn = dict[str, Value]
"""By entry of the space."""
Space = Mapping[str, Domain]


class Suggestions(Protocol):
    """What draws values: an optuna.Trial."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices."""
        ...

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Between the two."""
        ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        """Between the two, both included."""
        ...


class Dice:
    """Suggestions at random."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """See Suggestions."""
        return self.random.choice(choices)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """See Suggestions."""
        share = self.random.random()
        return low * (high / low) ** share if log else low + (high - low) * share

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        """See Suggestions."""
        return self.random.randrange(low, high + 1, step)


def draw(space: Space, base: Mapping[str, Any], by: Suggestions) -> Drawn:
    """A value for each entry that applies; `base` has the values of keys that are not searched."""
    drawn: Drawn = {}
    for name, domain in _in_order(space):
        if domain.times is None and domain.applies({**base, **settings(space, drawn)}):
            drawn[name] = draw_one(name, domain, by)
    return drawn


def draw_one(name: str, domain: Domain, by: Suggestions) -> Value:
    """A value for one entry, which follows no other key."""
    if domain.uniform is not None:
        return by.suggest_float(name, *domain.uniform)
    if domain.loguniform is not None:
        return by.suggest_float(name, *domain.loguniform, log=True)
    if domain.integers is not None:
        low, high, step = (*domain.integers, 1)[:3]
        return by.suggest_int(name, low, high, step=step)
    values = domain.values
    assert values is not None
    # By place: a searcher takes no lists as choices.
    return values[by.suggest_categorical(name, range(len(values)))]


def grid(space: Space, base: Mapping[str, Any]) -> list[Drawn]:
    """Every combination; values of the entries that come first change last."""
    points: list[Drawn] = [{}]
    for name, domain in _in_order(space):
        if domain.times is None:
            points = [
                longer
                for point in points
                for longer in _branches(name, domain, point, {**base, **settings(space, point)})
            ]
    return points


def settings(space: Space, drawn: Drawn) -> dict[str, Any]:
    """Values by key of a TrainSpec, those that follow another key included."""
    found: dict[str, Any] = {}
    for name, value in drawn.items():
        found |= settled(name, value)
    for name, domain in space.items():
        if domain.times is not None and domain.times[0] in found:
            key, factor = domain.times
            found |= dict.fromkeys(keys_in(name), _product(found[key], factor))
    return found


def _product(value: Any, factor: float) -> float:
    """2 times rank 8 is 16 and not 16.0, which no integer key takes."""
    product = value * factor
    return int(product) if isinstance(value, int) and product == int(product) else product


def _in_order(space: Space) -> Iterator[tuple[str, Domain]]:
    """Entries with a condition after those they depend on."""
    later = {name: domain for name, domain in space.items() if domain.when}
    yield from ((name, domain) for name, domain in space.items() if name not in later)
    while later:
        open_keys = {key for name in later for key in keys_in(name)}
        ready = [name for name, domain in later.items() if not open_keys & set(domain.when)]
        for name in ready or list(later):  # a circle: in the order they are written
            yield name, later.pop(name)


def _branches(
    name: str, domain: Domain, point: Drawn, known: Mapping[str, Any]
) -> Iterator[Drawn]:
    values = domain.values
    if not domain.applies(known) or values is None:
        yield point
        return
    for value in values:
        yield {**point, name: value}
