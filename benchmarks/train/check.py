"""`raylora data check` on a generated file of 1 GB: memory, and speed on one core."""

import json
import random
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from benchmarks.bars.bar import Bar, at_least, at_most, holds
from benchmarks.bars.chat_rows import WORDS
from benchmarks.bars.footprint import PeakMemory
from benchmarks.bars.sandbox import run, sandbox

SIZE = 1_000_000_000
PHRASES = 4096
CHECK_S = 600.0
ONE_CORE = ("taskset", "--cpu-list", "0")


def measure() -> Iterator[Bar]:
    """Twice before tokenisation, and once as a user types it, which tokenises a sample."""
    with sandbox() as box:
        file = box.folder / "large.jsonl"
        with file.open("wb") as out:
            rows = _write(out, random.Random(0))
        raylora = str(Path(sys.executable).with_name("raylora"))
        speeds: list[float] = []
        own: list[float] = []
        with PeakMemory(box.home) as memory:
            for options in (("--sample", "0"), ("--sample", "0"), ()):
                command = (*ONE_CORE, raylora, "data", "check", str(file), *options, "-o", "json")
                done = run(command, box.folder, box.environment, CHECK_S).expect()
                source = json.loads(done.stdout)["sources"][0]
                if options:
                    speeds.append(source["bytes"] / 1e6 / done.seconds)
                    own.append(source["megabytes_per_second"])
        yield holds("data check, 1 GB: rows seen", int(source["rows"] == rows), 1, "all rows")
        yield at_least(
            "data check, 1 GB: speed",
            speeds,
            50,
            " MB/s",
            f"one core, the whole command without tokenisation; by its own clock "
            f"{statistics.median(own):.0f} MB/s; {done.seconds:.0f} s with a sample tokenised",
        )
        yield at_most("data check, 1 GB: memory", [memory.peak_bytes / 1e6], 600, " MB", "PSS")


def _write(out: BinaryIO, draw: random.Random) -> int:
    """Chat rows of about 700 bytes, no two alike; the number of them."""
    phrases = [" ".join(draw.choices(WORDS, k=40)) for _ in range(PHRASES)]
    written = rows = 0
    while written < SIZE:
        first, second, third = draw.choices(phrases, k=3)
        line = (
            '{"messages": [{"role": "system", "content": "Be brief."}, '
            f'{{"role": "user", "content": "{rows} {first}"}}, '
            f'{{"role": "assistant", "content": "{second} {third}"}}]}}\n'
        )
        written += out.write(line.encode("ascii"))
        rows += 1
    return rows
