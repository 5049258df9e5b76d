"""Scores of one generated answer against its reference, each between 0 and 1."""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
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


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall over words, as SQuAD's, in any language.

    Words are compared in lower case and without punctuation; articles count. Two answers without
    a word are the same.
    """
    found, wanted = Counter(words(answer)), Counter(words(reference))
    if not found or not wanted:
        return float(found == wanted)
    shared = (found & wanted).total()
    return 2 * shared / (found.total() + wanted.total())


def rouge_l(answer: str, reference: str) -> float:
    """F1 of the longest common subsequence of words, by rouge-score.

    Its own words are ASCII only, so that an answer in Greek would score 0; ours are not.
    """
    if not words(answer) and not words(reference):
        return 1.0
    return float(_rouge().score(reference, answer)["rougeL"].fmeasure)


def regex_match(pattern: str) -> Metric:
    """1 where the pattern is found anywhere in the answer."""
    compiled = re.compile(pattern)
    return lambda answer, reference: float(compiled.search(answer) is not None)


def words(text: str) -> list[str]:
    """Letters, digits and underscores that stand together, in lower case."""
    return re.findall(r"\w+", text.lower())


METRICS: Final[Mapping[str, Metric]] = {
    "exact_match": exact_match,
    "json_valid": json_valid,
    "json_fields": json_fields,
    "token_f1": token_f1,
    "rouge_l": rouge_l,
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


class _Words:
    """The tokenizer that rouge-score asks for."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


@cache
def _rouge() -> Any:
    # rouge-score imports nltk for a stemmer that is not used here: seconds, so only when asked.
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_Words())


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
