"""A row as the model gets it: the text of each token, and which of them are learnt."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from raylora.jobs.data.examples import IGNORED, Example

REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
"""What a part of a character is decoded to."""


@dataclass(frozen=True)
class Span:
    """Neighbouring tokens that are all learnt, or none of them."""

    learnt: bool
    count: int
    """Tokens."""
    tokens: tuple[str, ...]
    """Their texts; tokens that share a character are one text."""


def spans(tokenizer: Any, example: Example) -> tuple[Span, ...]:
    """The tokens of an example in their order."""
    marked = zip(example.input_ids, example.labels, strict=True)
    found: list[Span] = []
    for learnt, group in groupby(marked, key=lambda pair: pair[1] != IGNORED):
        ids = [token for token, _ in group]
        found.append(Span(learnt, len(ids), tuple(_texts(tokenizer, ids))))
    return tuple(found)


def _texts(tokenizer: Any, ids: Sequence[int]) -> Iterator[str]:
    start = 0
    for end in range(1, len(ids) + 1):
        text: str = tokenizer.decode(ids[start:end], skip_special_tokens=False)
        # No character has more than four bytes: beyond, the bytes are no text at all.
        if not text.endswith(REPLACEMENT) or end - start == 4 or end == len(ids):
            yield text
            start = end
