"""Which values a search tries: a domain for each key, or for keys that move together."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field, model_validator

from raylora.config.spec import NonEmpty, Spec

Scalar = bool | int | float | str | None
Value = Scalar | tuple[Scalar, ...]
"""Of one key; for keys that move together a list, in their order."""

KINDS = ("choice", "grid", "uniform", "loguniform", "quniform", "integers", "times")


class Domain(Spec):
    """The values of a key; exactly one of the kinds, and perhaps a condition."""

    choice: tuple[Value, ...] | None = Field(default=None, min_length=1)
    """One of these."""
    grid: tuple[Value, ...] | None = Field(default=None, min_length=1)
    """Each of these, with every draw of the other keys."""
    uniform: tuple[float, float] | None = None
    """From the first to the second."""
    loguniform: tuple[float, float] | None = None
    """The same, evenly over orders of magnitude; for rates."""
    quniform: tuple[float, float, float] | None = None
    """From the first to the second in steps of the third."""
    integers: tuple[int, int] | tuple[int, int, int] | None = None
    """From the first to the second, both included; in steps of the third."""
    times: tuple[NonEmpty, float] | None = None
    """The value of another key times a number: [lora.r, 2] for lora_alpha."""
    when: Mapping[NonEmpty, Value] = {}
    """Search only where other keys have these values; else the key stays as it is."""

    @property
    def kind(self) -> str:
        """The kind that is set."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def values(self) -> tuple[Value, ...] | None:
        """All values, in order; None where they cannot be counted or follow another key."""
        if self.choice is not None or self.grid is not None:
            return self.choice or self.grid
        if self.integers is not None:
            low, high, step = (*self.integers, 1)[:3]
            return tuple(range(low, high + 1, step))
        if self.quniform is not None:
            low, high, step = self.quniform
            # 1e-9 of a step: 0.3 / 0.1 is a little less than 3
            return tuple(low + step * i for i in range(int((high - low) / step + 1e-9) + 1))
        return None

    @property
    def samples(self) -> tuple[Value, ...]:
        """What tells whether the domain fits its key: all values, or both ends."""
        ends = self.uniform or self.loguniform
        return self.values or ends or ()

    def applies(self, settings: Mapping[str, Any]) -> bool:
        """Whether the condition holds for the values of the other keys."""
        return all(settings.get(key) == wanted for key, wanted in self.when.items())

    @model_validator(mode="after")
    def _one_kind(self) -> "Domain":
        kinds = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(kinds) != 1:
            found = ", ".join(kinds) or "none"
            raise ValueError(f"found {found}; write exactly one of {', '.join(KINDS)}")
        self._refuse_reversed()
        return self

    def _refuse_reversed(self) -> None:
        bounds: Sequence[float] | None = (
            self.uniform or self.loguniform or self.quniform or self.integers
        )
        if bounds is None:
            return
        low, high = bounds[:2]
        if low > high:
            raise ValueError(f"{low:g} to {high:g} is reversed; write [{high:g}, {low:g}]")
        if self.integers is None and low == high:
            raise ValueError(f"{low:g} to {high:g} is empty; write choice: [{low:g}]")
        if self.loguniform is not None and low <= 0:
            raise ValueError(f"{low:g} has no logarithm; begin above 0, or write uniform")
        if len(bounds) == 3 and not (bounds[2] > 0 and math.isfinite(bounds[2])):
            raise ValueError(f"a step of {bounds[2]:g} leads nowhere; write one above 0")


def keys_in(name: str) -> tuple[str, ...]:
    """The keys of an entry of a space: one, or several with commas that move together."""
    return tuple(part.strip() for part in name.split(","))


def samples_of(name: str, domain: Domain) -> Iterator[dict[str, Any]]:
    """What each sample gives the keys of an entry; those of another number of values are not."""
    keys = keys_in(name)
    for value in domain.samples:
        if len(keys) == 1 or (isinstance(value, tuple) and len(value) == len(keys)):
            yield settled(name, value)


def settled(name: str, value: Value) -> dict[str, Any]:
    """What a value drawn for an entry gives each of its keys."""
    keys = keys_in(name)
    if len(keys) == 1:
        return {keys[0]: value}
    assert isinstance(value, tuple)
    return dict(zip(keys, value, strict=True))
