"""Commands of the bars, and what is known of those that do not end."""

import os
import sys
from pathlib import Path

import pytest
from benchmarks.bars.sandbox import run

HANGS = """
import sys, time
print("x" * 5000, "loaded the base", flush=True)
print("waits for head", file=sys.stderr, flush=True)
time.sleep(60)
"""


def test_what_takes_too_long_tells_what_it_said_last(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        run((sys.executable, "-c", HANGS), tmp_path, dict(os.environ), 2)
    told = str(caught.value)
    assert "2 s" in told
    assert "loaded the base" in told
    assert "waits for head" in told
    assert len(told) < 4000


def test_what_takes_too_long_and_says_nothing_is_told_too(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="sleep 60"):
        run(("sleep", "60"), tmp_path, dict(os.environ), 0.1)
