"""`make quickstart` in a fresh clone: nothing installed, then caches empty, then a second run."""

import json
import shlex
from collections.abc import Iterator
from typing import Any

from benchmarks.bars.bar import Bar, at_least, at_most, holds
from benchmarks.bars.footprint import PeakMemory
from benchmarks.bars.fresh import Clone, clone
from benchmarks.bars.openai_client import conversations


def measure() -> Iterator[Bar]:
    """Three runs in one clone; the last is kept up for the next commands and the openai client."""
    with clone() as fresh:
        cold = fresh.run("make", "quickstart", "ARGS=--output json", timeout_s=1800).expect()
        yield at_most("quickstart, nothing installed", [cold.seconds / 60], 15, " min")
        yield holds("stops all it started", int(not fresh.leftovers()), 1, "nothing left")

        fresh.empty_caches()
        with PeakMemory(fresh.home) as memory:
            warm = fresh.run("make", "quickstart", "ARGS=--output json", timeout_s=1200).expect()
        yield at_most(
            "quickstart, caches empty",
            [warm.seconds / 60],
            8,
            " min",
            f"stages (s): {_stages(_report(warm.stdout))}",
        )
        yield at_most("quickstart peak PSS", [memory.peak_bytes / 1e9], 8, " GB")
        runs = [_report(cold.stdout), _report(warm.stdout)]

        kept = fresh.run(
            "make", "quickstart", "ARGS=--keep --output json", timeout_s=1200
        ).expect()
        runs.append(_report(kept.stdout))
        yield from _scores(runs)
        versions = [run["adapter"].rpartition("@")[2] for run in runs]
        champions = [run["champion"].rpartition("@")[2] for run in runs]
        yield holds(
            "a second run registers the next", int(versions == ["1", "2", "3"]), 1, "order"
        )
        yield holds("champion stays the first", champions.count("1"), len(runs), "runs")

        done = [check() for check in conversations(str(runs[-1]["endpoint"]), runs[-1])]
        broken = "; ".join(name for name, passed in done if not passed)
        yield holds("openai client", sum(p for _, p in done), len(done), "conversations", broken)
        yield from _next_commands(fresh, "kept up", runs[-1])
        yield from _next_commands(fresh, "stopped", runs[1])
        yield holds("down leaves nothing", int(not fresh.leftovers()), 1, "nothing left")


def _report(stdout: str) -> dict[str, Any]:
    """The JSON object at the end of the output; make prints the command before it."""
    return json.loads(stdout[stdout.index("{\n") :])


def _stages(report: dict[str, Any]) -> str:
    return ", ".join(f"{name} {seconds:.0f}" for name, seconds in report["stage_seconds"].items())


def _scores(runs: list[dict[str, Any]]) -> Iterator[Bar]:
    base = [100 * run["scores"]["base"]["exact_match"] for run in runs]
    adapter = [100 * run["scores"]["adapter"]["exact_match"] for run in runs]
    yield at_most("held-out exact match, base", base, 10, " %")
    yield at_least("held-out exact match, adapter", adapter, 90, " %")


def _next_commands(fresh: Clone, state: str, report: dict[str, Any]) -> Iterator[Bar]:
    """Type each printed command as it stands, in its order."""
    commands: list[str] = report["next_commands"]
    bad: list[str] = []
    for command in commands:
        name, *arguments = shlex.split(command)
        if name != "raylora" or fresh.raylora(*arguments, timeout_s=300).code != 0:
            bad.append(command)
    works = len(commands) - len(bad)
    name = f"next commands, {state}"
    yield holds(name, works, len(commands), "work as printed", "; ".join(bad))
