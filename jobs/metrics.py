"""Scores of one generated answer against its reference, each between 0 and 1."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn, TypeAlias

from raylora.errors import InvalidConfig, Problem

Metric: TypeAlias = Callable[[str, str], float]
"""(answer, reference) -> score."""


def exact_match(answer: str, reference: str) -> float:
    """1 where both are the same JSON value, or the same text if the reference is no JSON.

    Order of keys and white space in JSON do not count, everything else does: 1 is neither 1.0
    nor true. Text is compared without white space around it.
    """
    wanted = _parse(reference)
    if wanted is _NO_JSON:
        return float(answer.strip() == reference.strip())
    return float(_same(_parse(answer), wanted))


def json_valid(answer: str, reference: str) -> float:
    """1 where the answer as a whole is JSON."""
    return float(_parse(answer) is not _NO_JSON)


def json_fields(answer: str, reference: str) -> float:
    """Share of the reference object's fields that the answer has right; else exact_match."""
    wanted = _parse(reference)
    if not isinstance(wanted, dict) or not wanted:
        return exact_match(answer, reference)
    found = _parse(answer)
    if not isinstance(found, dict):
        return 0.0
    right = sum(key in found and _same(found[key], value) for key, value in wanted.items())
    return right / len(wanted)


METRICS: Final[Mapping[str, Metric]] = {
    "exact_match": exact_match,
    "json_valid": json_valid,
    "json_fields": json_fields,
}


def choose(names: Sequence[str]) -> dict[str, Metric]:
    """Metrics by name. Raises InvalidConfig for names that there is no metric of."""
    remedy = f"Write some of: {', '.join(METRICS)}"
    problems = [
        Problem("evaluation.metrics", f"no metric is called {name!r}", remedy)
        for name in names
        if name not in METRICS
    ]
    if problems:
        raise InvalidConfig(problems)
    return {name: METRICS[name] for name in names}


_NO_JSON: Final = object()


def _parse(text: str) -> Any:
    """The JSON value, or _NO_JSON. NaN and a key given twice are no JSON here."""
    try:
        return json.loads(text, parse_constant=_refuse, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        return _NO_JSON


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key is given twice")
    return value


def _same(found: Any, wanted: Any) -> bool:
    """Equality by canonical text, since Python holds 1, 1.0 and True for equal."""
    return found is not _NO_JSON and _canonical(found) == _canonical(wanted)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
