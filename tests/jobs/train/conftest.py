"""Tiny runs as worker processes."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("tiny.py")


@pytest.fixture(scope="session")
def run_workers() -> Callable[..., list[list[dict[str, Any]]]]:
    """Make tiny runs in worker processes; what each of them has to say of each run."""

    def run(
        world: int, environment: dict[str, str], runs: list[dict[str, Any]]
    ) -> list[list[dict[str, Any]]]:
        port = _free_port()
        settings = {"world": world, "port": port, "runs": runs}
        workers = [
            subprocess.Popen(
                [sys.executable, str(PROGRAM), json.dumps(settings | {"rank": rank})],
                stdout=subprocess.PIPE,
                env={**os.environ, **environment},
                text=True,
            )
            for rank in range(world)
        ]
        printed = [worker.communicate(timeout=280)[0] for worker in workers]
        assert [worker.returncode for worker in workers] == [0] * world
        return [json.loads(text.strip().splitlines()[-1]) for text in printed]

    return run


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
