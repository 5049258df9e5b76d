"""NotFound, naming what is nearest to what was asked."""

from collections.abc import Iterable
from difflib import get_close_matches

from raylora.errors import NotFound


def not_found(kind: str, wanted: str, known: Iterable[str], where: str = "") -> NotFound:
    """The error for a name that is not there; `known` are the names that are."""
    names = list(known)
    near = get_close_matches(wanted, names, n=3, cutoff=0.4)
    if near:
        hint = f"nearest: {', '.join(near)}"
    elif names:
        hint = f"there are: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
    else:
        hint = f"there is no {kind} yet"
    return NotFound(f"no {kind} {wanted!r}{f' {where}' if where else ''}", hint=hint)
