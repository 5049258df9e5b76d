"""`make test` in a fresh clone."""

from collections.abc import Iterator

from benchmarks.bars.bar import Bar, at_most, holds
from benchmarks.bars.fresh import clone


def measure() -> Iterator[Bar]:
    """Install first, then time the tests alone."""
    with clone() as fresh:
        fresh.run("make", "setup", timeout_s=1800).expect()
        tests = fresh.run("make", "test", timeout_s=1800)
        lines = [line for line in tests.stdout.splitlines() if line.strip()]
        yield holds("make test passes", int(tests.code == 0), 1, "passes", lines[-1])
        yield at_most("make test, installed", [tests.seconds / 60], 15, " min")
        yield holds("make test leaves nothing", int(not fresh.leftovers()), 1, "nothing left")
