"""Rows to token ids, with labels on what is to be learnt.

The sequence is what the model meets when it generates: each answer follows the very prompt that
`chat_prompt` renders for it. A default system message of the template is in both, or in neither.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeAlias

from raylora.config.data_spec import DataSpec, Supervise
from raylora.jobs.data.answers import (
    Rendered,
    Span,
    TextView,
    TokenView,
    find_answers,
)
from raylora.jobs.data.chat_template import ChatTemplate
from raylora.jobs.data.conversation import PlainText
from raylora.jobs.data.examples import IGNORED, Example
from raylora.jobs.data.records import BadLine, Fault, Place
from raylora.jobs.data.rows import PlacedRow
from raylora.jobs.data.truncation import Fate, fit

BATCH_ROWS: Final = 128
BATCH_CHARACTERS: Final = 1_000_000
"""Rows are tokenised together up to either, so that memory stays bounded."""

TAIL_CHARACTERS: Final = 256
"""Ends of prompts up to this long are remembered."""


@dataclass(frozen=True)
class EncodedRow:
    """What became of one row."""

    place: Place
    examples: tuple[Example, ...]
    """Each has a label. Several where a row was split, or its answers became rows of their own."""
    length: int
    """Tokens before truncation."""
    fate: Fate
    unsupervised: int
    """Parts left out of a split row, for they have no label."""
    sequences: int
    """More than one where answers became rows of their own."""


TokenRow: TypeAlias = Rendered[list[int]]
Draft: TypeAlias = Rendered[str] | TokenRow | PlainText


class Encoder:
    """Encodes rows with one tokenizer, which has the chat template, as one spec says."""

    def __init__(self, tokenizer: Any, data: DataSpec) -> None:
        self._tokenizer = tokenizer
        self._data = data
        self._template = ChatTemplate(tokenizer)
        self._short_ids = lru_cache(maxsize=4096)(self._ids_of)

    def encode(self, rows: Iterable[PlacedRow | Fault]) -> Iterator[EncodedRow | Fault]:
        """What becomes of each row, in their order; one that cannot be used becomes a Fault."""
        for batch in _batches(rows):
            drafted = [self._drafts(row) for row in batch]
            tokenised = self._tokenised([d for ds in drafted if isinstance(ds, list) for d in ds])
            for row, drafts in zip(batch, drafted, strict=True):
                if isinstance(drafts, Fault):
                    yield drafts
                else:
                    yield self._finished(row.place, [next(tokenised) for _ in drafts])

    def _drafts(self, row: PlacedRow | Fault) -> list[Draft] | Fault:
        """The sequences of a row, which are tokenised together with those of others."""
        if isinstance(row, Fault):
            return row
        if isinstance(row.content, PlainText):
            return [row.content]
        conversation = row.content.prompted(self._data.system_prompt)
        supervise = self._data.supervise
        try:
            self._template.check_tools(conversation.tools)
            # Text that holds a control token is rendered to ids, where it stays text: slower.
            if self._template.could_forge([*conversation.messages, *conversation.tools]):
                view = TokenView(self._template, conversation, self._tokenizer)
                return [*find_answers(conversation, supervise, view)]
            text_view = TextView(self._template, conversation)
            return [*find_answers(conversation, supervise, text_view)]
        except BadLine as problem:
            return Fault(row.place, problem)

    def _tokenised(self, drafts: Sequence[Draft]) -> Iterator[TokenRow | BadLine]:
        """Token ids of each draft with its answers among them, or why they cannot be told."""
        chats = [d.sequence for d in drafts if isinstance(d, Rendered)]
        chat = iter(self._encodings([text for text in chats if isinstance(text, str)]))
        texts = [draft.text for draft in drafts if isinstance(draft, PlainText)]
        plain = iter(self._encodings(texts, add_special_tokens=True, split_special_tokens=True))
        for draft in drafts:
            if isinstance(draft, PlainText):
                yield self._ended(next(plain).ids)
            elif isinstance(draft.sequence, str):
                yield self._located(draft.sequence, draft.answers, next(chat))
            else:
                yield Rendered(draft.sequence, draft.answers)

    def _ended(self, ids: list[int]) -> TokenRow:
        """Plain text, with the token that ends it."""
        end = self._tokenizer.eos_token_id
        ended = ids if end is None or ids[-1:] == [end] else [*ids, end]
        return Rendered(ended, (Span(0, len(ended), 1.0),))

    def _located(self, text: str, answers: Sequence[Span], encoding: Any) -> TokenRow | BadLine:
        """Answers in a text to answers in its tokens.

        A prompt's tokens are those before its last control token, where any tokenizer splits, and
        those of its tail from there on, which are few and mostly the same in all rows.
        """
        ids: list[int] = encoding.ids
        controls = [found.start() for found in self._template.control_pattern.finditer(text)]
        spans: list[Span] = []
        for answer in answers:
            before = bisect_left(controls, answer.start)
            tail_at = controls[before - 1] if before else 0
            tail = self._tail(text[tail_at : answer.start])
            first = encoding.char_to_token(tail_at)
            end = encoding.char_to_token(answer.stop - 1)
            if first is None or end is None or ids[first : first + len(tail)] != tail:
                return BadLine(
                    "the chat template cannot be used: an answer's first token holds the end of "
                    "its prompt; an answer that begins with white space can be the cause",
                    "change the row, or set data.chat_template to a template that ends prompts "
                    "with a control token",
                )
            spans.append(Span(first + len(tail), end + 1, answer.weight))
        return Rendered(ids, tuple(spans))

    def _finished(self, place: Place, rows: Sequence[TokenRow | BadLine]) -> EncodedRow | Fault:
        try:
            return fitted(place, [self._labelled(row) for row in rows], self._data)
        except BadLine as problem:
            return Fault(place, problem)

    def _labelled(self, row: TokenRow | BadLine) -> Example:
        if isinstance(row, BadLine):
            raise row
        ids, size = row.sequence, len(row.sequence)
        weights = [float(self._data.supervise is Supervise.ALL)] * size
        for span in row.answers:
            weights[span.start : span.stop] = [span.weight] * (span.stop - span.start)
        labels = [t if weight else IGNORED for t, weight in zip(ids, weights, strict=True)]
        labels[:1] = [IGNORED] * min(size, 1)
        is_plain = set(weights) <= {0.0, 1.0}
        example = Example(ids, labels, None if is_plain else weights)
        if not example.supervised_tokens:
            raise BadLine(
                f"none of its {size} tokens is part of an answer that counts",
                "write an answer, or drop the row",
            )
        return example

    def _encodings(self, texts: Sequence[str], **how: Any) -> Sequence[Any]:
        if not texts:
            return ()
        given: dict[str, Any] = {"add_special_tokens": False, **how}
        encoded = self._tokenizer(
            list(texts),
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
            **given,
        )
        return encoded.encodings

    def _tail(self, text: str) -> list[int]:
        return self._short_ids(text) if len(text) <= TAIL_CHARACTERS else self._ids_of(text)

    def _ids_of(self, text: str) -> list[int]:
        return self._encodings([text])[0].ids if text else []


def fitted(place: Place, whole: Sequence[Example], data: DataSpec) -> EncodedRow:
    """What truncation makes of a row. Raises BadLine where it leaves nothing to learn."""
    fates = [fit(example, data) for example in whole]
    parts = [part for examples, _ in fates for part in examples]
    kept = tuple(part for part in parts if part.supervised_tokens)
    if parts and not kept:
        raise BadLine(
            f"no answer is left in the {data.max_length} tokens that are kept of "
            f"{max(map(len, whole))}",
            "shorten the row, raise data.max_length, or choose another data.truncation",
        )
    return EncodedRow(
        place,
        kept,
        length=max(map(len, whole)),
        fate=max((fate for _, fate in fates), key=list(Fate).index),
        unsupervised=len(parts) - len(kept),
        sequences=len(whole),
    )


def _batches(rows: Iterable[PlacedRow | Fault]) -> Iterator[list[PlacedRow | Fault]]:
    batch: list[PlacedRow | Fault] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += _size(row)
        if len(batch) == BATCH_ROWS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    yield batch


def _size(row: PlacedRow | Fault) -> int:
    if isinstance(row, Fault):
        return 0
    if isinstance(row.content, PlainText):
        return len(row.content.text)
    return sum(len(message["content"]) for message in row.content.messages)
