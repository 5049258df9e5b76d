"""Programs of benchmarks/peers in their own environment, which `make bars-setup` makes."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bars.fresh import REPOSITORY
from benchmarks.bars.sandbox import own_environment
from benchmarks.bars.spoken import Child, Line, child

PYTHON = REPOSITORY / "benchmarks/.peers/bin/python"
STEP_S = 300.0
"""A step of a peer that takes longer has hung."""


@dataclass(frozen=True)
class Step:
    """One optimizer step of a peer, over all of its workers."""

    seconds: float
    tokens: int
    """Of the data, without padding."""
    threads: int
    """Of each worker, as torch had set them."""

    @property
    def rate(self) -> float:
        """Useful tokens a second."""
        return self.tokens / self.seconds


class Stepper:
    """A peer that has loaded its model and waits between steps."""

    def __init__(self, name: str, running: Child) -> None:
        self._name = name
        self._running = running
        self._lines = running.heard()

    def step(self) -> Step:
        """Take one step. Raises RuntimeError where the peer has died."""
        try:
            self._running.tell("go")
        except BrokenPipeError:
            raise self._running.fault(f"{self._name} crashed") from None
        for _, line in self._lines:
            if "step" in line:
                return _step([line])
        raise self._running.fault(f"{self._name} crashed")


@contextmanager
def stepper(program: str, threads: int, **settings: Any) -> Iterator[Stepper]:
    """Start benchmarks/peers/PROGRAM.py and take its first step, which is not counted."""
    with tempfile.TemporaryDirectory(prefix="rlb-peer-") as folder:
        given = {**settings, "folder": folder, "waits": True, "steps": 1000}
        command = (str(_python()), "-m", f"benchmarks.peers.{program}", json.dumps(given))
        environment = _environment(threads)
        with child(command, REPOSITORY, environment, 20 * STEP_S) as running:
            peer = Stepper(program, running)
            peer.step()
            yield peer


def run(
    program: str, *, threads: int | None, workers: int = 1, steps: int, **settings: Any
) -> list[Step]:
    """Run a peer to its end; several workers are torchrun's. threads=None sets none."""
    with tempfile.TemporaryDirectory(prefix="rlb-peer-") as folder:
        given = {**settings, "folder": folder, "waits": False, "steps": steps}
        several = ("torch.distributed.run", "--standalone", f"--nproc_per_node={workers}", "-m")
        module = (*(several if workers > 1 else ()), f"benchmarks.peers.{program}")
        command = (str(_python()), "-m", *module, json.dumps(given))
        with child(command, REPOSITORY, _environment(threads), STEP_S * steps) as running:
            lines = [line for _, line in running.heard() if "step" in line]
            if running.process.wait() != 0:
                raise running.fault(f"{program} crashed")
    by_step: dict[int, list[Line]] = {}
    for line in lines:
        by_step.setdefault(int(line["step"]), []).append(line)
    return [_step(by_step[step]) for step in sorted(by_step)]


def _step(lines: list[Line]) -> Step:
    """One step from what its workers said."""
    return Step(
        seconds=max(line["seconds"] for line in lines),
        tokens=sum(line["tokens"] for line in lines),
        threads=int(lines[0]["threads"]),
    )


def _python() -> Path:
    if not PYTHON.exists():
        raise RuntimeError("the peers' environment is missing: run make bars-setup")
    return PYTHON


def _environment(threads: int | None) -> dict[str, str]:
    kept = {k: v for k, v in own_environment().items() if not k.startswith(("OMP_", "MKL_"))}
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return kept | quiet | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
