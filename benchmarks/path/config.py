"""A YAML with three mistakes: three errors, each with its key and remedy, exit 5, under 2 s."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bars.bar import Bar, at_most, holds

MISTAKES = """\
name: my adapter
lora:
  rank: 8
training:
  learning_rate: fast
"""
KEYS = {
    "name": "my adapter",
    "lora.rank": "lora.r",
    "training.learning_rate": "fast",
}
"""Each key, and a word that its error must contain: what was found, or what to write instead."""


def measure() -> Iterator[Bar]:
    """Validate the file three times through the command a user types."""
    seconds: list[float] = []
    named = code = 0
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "mistakes.yaml"
        spec.write_text(MISTAKES, encoding="utf-8")
        for _ in range(3):
            started = time.monotonic()
            done = subprocess.run(
                [str(Path(sys.executable).with_name("raylora")), "submit", str(spec)],
                capture_output=True,
                text=True,
                check=False,
            )
            seconds.append(time.monotonic() - started)
            code = done.returncode
            named = sum(
                any(key in line and word in line for line in _blocks(done.stderr, key))
                for key, word in KEYS.items()
            )
    yield holds("config errors named", named, len(KEYS), "keys with remedy")
    yield holds("config exit code", int(code == 5), 1, "exit 5")
    yield at_most("config errors seconds", seconds, 2.0, " s")


def _blocks(text: str, key: str) -> list[str]:
    """The lines from each mention of the key up to three lines on, joined."""
    lines = text.splitlines()
    return [" ".join(lines[i : i + 4]) for i, line in enumerate(lines) if key in line]
