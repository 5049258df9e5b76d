"""Which trials are worth their cost: no other one is better and at most as dear."""

from collections.abc import Mapping


def front(points: Mapping[str, tuple[float, ...]]) -> list[str]:
    """The names that no other point dominates, by the first coordinate; less is better in all.

    Points that are equal do not dominate each other.
    """
    kept = [
        name
        for name, point in points.items()
        if not any(_dominates(other, point) for other in points.values())
    ]
    return sorted(kept, key=lambda name: points[name])


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)
