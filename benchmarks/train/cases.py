"""Tests that are bars at the same time: run, counted, and the figures they record."""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.bars.fresh import REPOSITORY
from benchmarks.bars.sandbox import own_environment


@dataclass(frozen=True)
class Case:
    """One test case."""

    name: str
    fault: str
    """Why it failed, was skipped or broke; nothing where it passed."""
    recorded: dict[str, float]
    """What it gave to record_property."""


def run_cases(selected: str, timeout_s: float) -> list[Case]:
    """Run the tests of a file or a node of it. Raises RuntimeError where there are none."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "cases.xml"
        pytest = str(Path(sys.executable).with_name("pytest"))
        # xunit1 is the older of pytest's two formats, and the one that holds recorded figures.
        options = ("-q", f"--junitxml={report}", "-o", "junit_family=xunit1")
        done = subprocess.run(
            [pytest, *options, selected],
            cwd=REPOSITORY,
            env=own_environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        cases = [] if not report.exists() else _read(report)
    if not cases:
        raise RuntimeError(f"no tests at {selected}:\n{done.stdout[-1500:]}")
    return cases


def _read(report: Path) -> list[Case]:
    return [
        Case(
            str(case.get("name")),
            "; ".join(
                str(found.get("message"))[:200]
                for tag in ("failure", "error", "skipped")
                for found in case.iter(tag)
            ),
            {
                str(item.get("name")): float(str(item.get("value")))
                for item in case.iter("property")
            },
        )
        for case in ElementTree.parse(report).iter("testcase")
    ]
