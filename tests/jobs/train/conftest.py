"""The tiny run as fixtures: in this process with a group of one, or as two worker processes."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import distributed as dist

PROGRAM = Path(__file__).with_name("tiny.py")


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tiny", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def process_group() -> Iterator[None]:
    """A group of one; DeepSpeed keeps its own handle on it, so one serves all tests."""
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(_free_port()), RANK="0", LOCAL_RANK="0"
    )
    os.environ["WORLD_SIZE"] = "1"
    dist.init_process_group("gloo")
    yield
    dist.destroy_process_group()


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
