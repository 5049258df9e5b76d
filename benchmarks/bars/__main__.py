"""Measure the bars of one part: `python -m benchmarks.bars path`, one bar with BARS=name.

Prints a line for each bar, writes the same to outputs/bars/PART.json and exits 1 if one is short.
A measurement with a bar that is short within its spread is repeated once at the end, where the
part has time for it; both figures are shown.
"""

import importlib
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

from benchmarks.bars.bar import Bar, Verdict, failed

PARTS = {
    name: f"benchmarks.{name}.measures" for name in ("path", "train", "sweep", "serve", "registry")
}
Measure = Callable[[], Iterable[Bar]]
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "deepspeed", "ray", "mlflow")


def main(arguments: list[str]) -> int:
    """Run the part named on the command line."""
    if len(arguments) != 1 or arguments[0] not in PARTS:
        sys.stderr.write(f"usage: python -m benchmarks.bars {'|'.join(PARTS)}\n")
        return 2
    part = arguments[0]
    module = importlib.import_module(PARTS[part])
    measures: Mapping[str, Measure] = module.MEASURES
    chosen = _chosen(measures)
    load = os.getloadavg()[0]
    started = time.monotonic()
    bars = _measure_all(
        {name: measures[name] for name in chosen}, started + 60 * module.REPEAT_WITHIN_MIN
    )
    minutes = (time.monotonic() - started) / 60
    short = [bar.name for bar in bars if bar.verdict is Verdict.SHORT]
    _write(part, bars, minutes, load)
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


def _measure_all(measures: Mapping[str, Measure], repeat_until: float) -> list[Bar]:
    """All of them in order, then once more those that noise may have decided."""
    measured: dict[str, list[Bar]] = {}
    seconds: dict[str, float] = {}
    for name, measure in measures.items():
        started = time.monotonic()
        measured[name] = _measure(name, measure)
        seconds[name] = time.monotonic() - started
    for name, bars in measured.items():
        late = time.monotonic() + seconds[name] > repeat_until
        if any(bar.near for bar in bars) and not late:
            _say(f"{name}: short within its spread, measured once more")
            first = {bar.name: bar for bar in bars}
            measured[name] = [
                bar.after(first[bar.name]) if bar.name in first else bar
                for bar in _measure(name, measures[name])
            ]
    return [bar for bars in measured.values() for bar in bars]


def _measure(name: str, measure: Measure) -> list[Bar]:
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


def _write(part: str, bars: list[Bar], minutes: float, load: float) -> None:
    target = Path("outputs/bars") / f"{part}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "part": part,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "minutes": round(minutes, 1),
        "machine": {
            "cpus": os.cpu_count(),
            "processor": platform.machine(),
            "load_before": round(load, 2),
        },
        "versions": {name: version(name) for name in PACKAGES},
        "bars": [bar.as_dict() for bar in bars],
    }
    target.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
