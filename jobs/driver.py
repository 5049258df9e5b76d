"""A program that drives a job on the cluster: its arguments, its errors, its end."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from raylora.cluster.bundle import as_named
from raylora.cluster.events import ErrorEvent, emit
from raylora.config.places import new_run_id
from raylora.errors import ExitCode, RayloraError


@dataclass(frozen=True)
class Given:
    """The arguments of a job's program."""

    spec: Path
    """File of the resolved spec."""
    run_id: str
    config: str
    """What stands after `raylora submit` for the same training: a configuration and overrides."""
    commit: str = ""
    """Of the git repository that it was submitted from; empty where that is not known."""


def drive(program: str, act: Callable[[Given], object], argv: Sequence[str] | None = None) -> int:
    """Call `act` with the program's arguments; the exit code of its first error.

    stdout carries the events, an error among them.
    """
    parser = argparse.ArgumentParser(prog=program)
    parser.add_argument("spec", type=Path)
    parser.add_argument("--run-id", default=None)
    parser.add_argument("--config", default="spec.yaml")
    parser.add_argument("--commit", default="")
    arguments = parser.parse_args(argv)
    run_id = arguments.run_id or new_run_id()
    given = Given(arguments.spec, run_id, arguments.config, arguments.commit)
    # Ray would fold lines that look alike, and the events of two steps do.
    os.environ["RAY_DEDUP_LOGS"] = "0"
    try:
        act(given)
    except RayloraError as error:
        emit(ErrorEvent(as_named(error.message), error.hint))
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("the job was stopped\n")
        return ExitCode.INTERRUPTED
    return ExitCode.OK


def connect() -> None:
    """Connect to the cluster that the job runs on; from then on SIGTERM is KeyboardInterrupt."""
    import ray

    if not ray.is_initialized():
        ray.init(address="auto", log_to_driver=True)
    # After ray.init, which sets a handler of its own.
    signal.signal(signal.SIGTERM, _stop)


def _stop(signum: int, frame: object) -> NoReturn:
    """A stopped job gets SIGTERM. While Ray waits it lets no other exception than this through."""
    raise KeyboardInterrupt
