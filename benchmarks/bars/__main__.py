"""Measure the bars of one part: `python -m benchmarks.bars path`, one bar with BARS=name.

Prints a line for each bar, writes the same to outputs/bars/PART.json and exits 1 if one is short.
"""

import importlib
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from benchmarks.bars.bar import Bar, Verdict, failed

PARTS = {"path": "benchmarks.bars.path"}


def main(arguments: list[str]) -> int:
    """Run the part named on the command line."""
    if len(arguments) != 1 or arguments[0] not in PARTS:
        sys.stderr.write(f"usage: python -m benchmarks.bars {'|'.join(PARTS)}\n")
        return 2
    part = arguments[0]
    measures: Mapping[str, Callable[[], Iterable[Bar]]] = importlib.import_module(
        PARTS[part]
    ).MEASURES
    chosen = _chosen(measures)
    started = time.monotonic()
    bars = [bar for name in chosen for bar in _measure(name, measures[name])]
    minutes = (time.monotonic() - started) / 60
    short = [bar.name for bar in bars if bar.verdict is Verdict.SHORT]
    _write(part, bars, minutes)
    _say(f"{len(bars)} bars in {minutes:.1f} min, short: {', '.join(short) or 'none'}")
    return 1 if short else 0


def _chosen(measures: Mapping[str, object]) -> list[str]:
    wanted = os.environ.get("BARS", "")
    if not wanted:
        return list(measures)
    unknown = [name for name in wanted.split(",") if name not in measures]
    if unknown:
        sys.exit(f"BARS={wanted}: unknown {', '.join(unknown)}; known: {', '.join(measures)}")
    return wanted.split(",")


def _measure(name: str, measure: Callable[[], Iterable[Bar]]) -> list[Bar]:
    """Run one measurement; what it could not finish is a short bar, not the end of the rest."""
    bars: list[Bar] = []
    try:
        for bar in measure():
            bars.append(bar)
            _say(bar.line())
    except Exception as error:
        traceback.print_exc()
        bars.append(failed(name, "-", f"{type(error).__name__}: {error}"))
        _say(bars[-1].line())
    return bars


def _write(part: str, bars: list[Bar], minutes: float) -> None:
    target = Path("outputs/bars") / f"{part}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "part": part,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "minutes": round(minutes, 1),
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine()},
        "bars": [bar.as_dict() for bar in bars],
    }
    target.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
