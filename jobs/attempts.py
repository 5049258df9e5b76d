"""What a run's metadata remembers from one start of its workers to the next.

Above all whether memory ran out: a worker that the kernel or Ray killed for it cannot say
so itself, but the next attempt can see it, and begins with half the rows in a forward pass.
"""

import json
import re
import socket
import time
from pathlib import Path

from raylora.config.places import RunPlaces
from raylora.lora import atomic

ATTEMPTS = "attempts.jsonl"
"""One line each time the workers begin."""
MICRO_BATCH = "micro_batch.json"
"""Rows in a forward pass, where memory made them fewer than the spec's."""
OUT_OF_MEMORY = "out_of_memory.json"
"""Why the attempt before this one ended, where that was memory."""

_KERNEL_COUNTERS = (
    Path("/proc/vmstat"),
    Path("/sys/fs/cgroup/memory.events"),
    Path("/sys/fs/cgroup/memory/memory.oom_control"),
)
"""Files with a line `oom_kill N`: this machine's, and this container's under cgroup 2 and 1."""


class Attempts:
    """The attempts of one run, as its workers and its driver see them."""

    def __init__(self, places: RunPlaces) -> None:
        self._folder = places.metadata

    def begin(self, resumed_step: int, micro_batch_size: int) -> int:
        """Write down that workers begin; which beginning of the run this is."""
        path = self._folder / ATTEMPTS
        with path.open("a", encoding="utf-8") as file:
            line = {
                "resumed_step": resumed_step,
                "micro_batch_size": micro_batch_size,
                "time": time.time(),
            }
            file.write(json.dumps(line) + "\n")
        return len(path.read_text(encoding="utf-8").splitlines())

    def memory_ran_out(self, reason: str) -> None:
        """Let the next attempt know why this one ended."""
        atomic.write_text(self._folder / OUT_OF_MEMORY, json.dumps({"reason": reason}) + "\n")

    def was_killed_for_memory(self) -> bool:
        """Whether the kernel killed something for memory on this machine since this was asked.

        One process of a machine asks when it begins; the first time it is always False.
        """
        path = self._folder / f"oom_kills-{socket.gethostname()}.json"
        before: dict[str, int] = _read(path)
        now = _kernel_kills()
        atomic.write_text(path, json.dumps(now) + "\n")
        return any(count > before.get(name, count) for name, count in now.items())

    def take_memory_note(self) -> bool:
        """Whether memory_ran_out was called since the last attempt began."""
        path = self._folder / OUT_OF_MEMORY
        said = path.exists()
        path.unlink(missing_ok=True)
        return said

    def micro_batch_size(self, wanted: int) -> int:
        """Rows in a forward pass to begin with; `wanted` is the spec's."""
        return min(wanted, _read(self._folder / MICRO_BATCH).get("micro_batch_size", wanted))

    def keep_micro_batch_size(self, size: int) -> None:
        """Begin with so many from now on."""
        text = json.dumps({"micro_batch_size": size})
        atomic.write_text(self._folder / MICRO_BATCH, text + "\n")


def _kernel_kills() -> dict[str, int]:
    found: dict[str, int] = {}
    for path in _KERNEL_COUNTERS:
        if path.exists():
            text = path.read_text(encoding="utf-8")
            if match := re.search(r"^oom_kill (\d+)", text, re.MULTILINE):
                found[str(path)] = int(match[1])
    return found


def _read(path: Path) -> dict[str, int]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
