"""Chat rows of wanted lengths: the same text, token for token, for us and for every peer."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MASKED = 0.6
"""Share of a row's tokens that is no answer."""
SHORTEST, LONGEST = 64, 282
SYSTEM = "Be brief."
IGNORED = -100

_COMMON = (
    "the of and to in for on with is at by from this that it as are was be have an or not can "
    "will more one all out up so time about see no do may now over down only some new first "
    "people other way like what who how where when day after last work home call part book year"
)
WORDS = _COMMON.split()
"""Each is one token of SmolLM2, at the beginning of a text as well as behind a space."""


@dataclass(frozen=True)
class ChatRows:
    """The rows on disk in both forms."""

    messages: Path
    """What `data.train` takes."""
    tokens: Path
    """What peers take: {"input_ids": [...], "labels": [...]} a line."""
    lengths: tuple[int, ...]
    supervised: tuple[int, ...]

    @property
    def masked_share(self) -> float:
        """Share of all tokens without a label."""
        return 1 - sum(self.supervised) / sum(self.lengths)


def skewed_lengths(count: int, seed: int = 0) -> list[int]:
    """Lengths from 64 to 282 tokens, most of them short (mean about 145), shuffled."""
    reach = LONGEST - SHORTEST
    lengths = [SHORTEST + round(reach * (i / (count - 1)) ** 1.7) for i in range(count)]
    random.Random(seed).shuffle(lengths)
    return lengths


def one_long_row(ratio: int, rows: int, mean: int) -> list[int]:
    """`rows` lengths of the same sum whatever the ratio of the longest to the mean."""
    longest = ratio * mean
    if ratio == 1:
        return [mean] * rows
    rest, others = rows * mean - longest, rows - 1
    return [longest] + [rest // others + (i < rest % others) for i in range(others)]


def write(folder: Path, name: str, lengths: Sequence[int], tokenizer: Any) -> ChatRows:
    """Write a row of each length. Raises RuntimeError where the tokenizer splits a word."""
    draw = random.Random(name)
    conversations = [_conversation(length, tokenizer, draw) for length in lengths]
    tokens = [encode(messages, tokenizer) for messages in conversations]
    found = [len(row["input_ids"]) for row in tokens]
    if found != list(lengths):
        raise RuntimeError(f"rows of {lengths} tokens came out as {found}")
    rows = ChatRows(
        folder / f"{name}.jsonl",
        folder / f"{name}.tokens.jsonl",
        tuple(found),
        tuple(sum(label != IGNORED for label in row["labels"]) for row in tokens),
    )
    write_lines(rows.messages, [{"messages": messages} for messages in conversations])
    write_lines(rows.tokens, tokens)
    return rows


def encode(messages: list[dict[str, str]], tokenizer: Any) -> dict[str, list[int]]:
    """Token ids, and labels on the last answer with its end-of-turn token."""
    whole = _render(messages, tokenizer)
    prompt = _render(messages[:-1], tokenizer, add_generation_prompt=True)
    if whole[: len(prompt)] != prompt:
        raise RuntimeError("the prompt is no prefix of the conversation")
    # ChatML ends a turn with a line break that is never generated.
    answer = whole[len(prompt) : -1]
    labels = [IGNORED] * len(prompt) + answer + [IGNORED]
    return {"input_ids": whole, "labels": labels}


def write_lines(path: Path, rows: Sequence[object]) -> None:
    """JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _conversation(length: int, tokenizer: Any, draw: random.Random) -> list[dict[str, str]]:
    bare = _messages("the", "the")
    around = len(_render(bare, tokenizer)) - 2
    before = len(_render(bare[:-1], tokenizer, add_generation_prompt=True)) - 1
    asked = max(1, round(MASKED * length) - before - 1)
    answered = length - around - asked
    return _messages(
        " ".join(draw.choices(WORDS, k=asked)), " ".join(draw.choices(WORDS, k=answered))
    )


def _messages(question: str, answer: str) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]


def _render(messages: list[dict[str, str]], tokenizer: Any, **options: bool) -> list[int]:
    return list(tokenizer.apply_chat_template(messages, return_dict=False, **options))
