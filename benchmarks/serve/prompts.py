"""Prompts of the bars of serving: the bundled task's held-out rows, in the chat template."""

import random
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bars.smollm2 import Base
from raylora.config.compose import load_train
from raylora.engine.prompts import chat_prompt
from raylora.jobs.data.rows import read_rows

Messages = list[dict[str, str]]


def conversations(count: int) -> list[Messages]:
    """So many different conversations, each up to the answer."""
    spec = load_train("quickstart").spec
    rows = read_rows(str(spec.data.validation), Path.cwd()).items
    drawn = random.Random(0).sample(list(rows), count)
    return [row.conversation(spec.data.system_prompt)[:-1] for row in drawn]


def prompts(base: Base, count: int) -> list[list[int]]:
    """Token ids of so many different prompts."""
    return [list(chat_prompt(base.tokenizer, messages)) for messages in conversations(count)]


def spread(count: int, shortest: int, longest: int, seed: int) -> list[int]:
    """So many lengths between the two, as many short as long ones on a logarithmic scale."""
    draw = random.Random(seed)
    return [round(shortest * (longest / shortest) ** draw.random()) for _ in range(count)]


def arrivals(count: int, per_second: float, seed: int) -> Sequence[float]:
    """Seconds at which so many requests come, as a Poisson process."""
    draw, now, moments = random.Random(seed), 0.0, list[float]()
    for _ in range(count):
        moments.append(now)
        now += draw.expovariate(per_second)
    return moments


def stories(base: Base, count: int) -> list[list[int]]:
    """Token ids of beginnings that the base goes on from for hundreds of tokens."""
    names = ("Anna", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ida", "Jon", "Kim")
    places = ("a harbour", "a forest", "a small town", "an old mill")
    return [
        base.tokenizer.encode(
            f"Once upon a time, in {places[i % len(places)]}, there lived a baker called "
            f"{names[i % len(names)]} who had {i + 2} cats. Every morning"
        )
        for i in range(count)
    ]
