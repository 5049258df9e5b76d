"""Programs of the job rooms as child processes: they need packages that a thin client lacks."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import click

from raylora.errors import MissingExtra

MODEL_PACKAGES = ("torch", "transformers", "safetensors")
"""What the extras train and serve bring, and programs import that load a model or a tokenizer."""
REPORT_PACKAGES = ("optuna", "plotly", "sklearn")
"""What the extra train brings, and the report of a sweep imports."""


def run_program(
    program: str,
    arguments: Sequence[str],
    *,
    needed_for: str,
    packages: Sequence[str] = MODEL_PACKAGES,
) -> Any:
    """Run `python -m PROGRAM ARGUMENTS` to its end and give the JSON it printed on stdout.

    Its stderr is this command's: progress, and the reason where it fails; then this command ends
    with the same exit code. Raises MissingExtra before anything starts where it lacks `packages`.
    """
    if any(importlib.util.find_spec(package) is None for package in packages):
        raise MissingExtra("train", needed_for)
    # -P: a file in the current folder must not take the place of a package.
    done = subprocess.run(
        [sys.executable, "-P", "-m", program, *arguments],
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        raise click.exceptions.Exit(done.returncode if done.returncode > 0 else 1)
    return json.loads(done.stdout)
