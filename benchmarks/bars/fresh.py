"""A fresh clone of the committed tree with its own home, caches and outputs."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bars.footprint import processes

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Clone:
    """A checkout nobody has touched, and the environment its commands run in."""

    root: Path
    home: Path
    cache: Path

    @property
    def environment(self) -> dict[str, str]:
        """The caller's environment with every cache of ours and of torch moved into the clone."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "RAYLORA_"))}
        return kept | {
            "RAYLORA_HOME": str(self.home),
            "RAYLORA_CACHE": str(self.cache),
            "TORCH_EXTENSIONS_DIR": str(self.root.parent / "extensions"),
            "TORCHINDUCTOR_CACHE_DIR": str(self.root.parent / "inductor"),
            "TTY_COMPATIBLE": "0",
        }

    def run(self, *command: str, timeout_s: float) -> "Finished":
        """Run a command in the clone; its output is kept whatever its exit code."""
        started = time.monotonic()
        done = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        return Finished(done.returncode, done.stdout, done.stderr, time.monotonic() - started)

    def raylora(self, *arguments: str, timeout_s: float = 120) -> "Finished":
        """Run the clone's own raylora."""
        return self.run(".venv/bin/raylora", *arguments, timeout_s=timeout_s)

    def leftovers(self) -> dict[int, str]:
        """Processes started by this clone that are still alive."""
        return processes(self.home)

    def empty_caches(self) -> None:
        """Forget models and compiled code; installed packages stay."""
        for folder in (self.cache, self.root.parent / "extensions", self.root.parent / "inductor"):
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Finished:
    """A command that ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    def expect(self, code: int = 0) -> "Finished":
        """Self, or an error with the end of the output."""
        if self.code != code:
            tail = (self.stdout[-1500:] + "\n" + self.stderr[-1500:]).strip()
            raise RuntimeError(f"exit {self.code}, expected {code}:\n{tail}")
        return self


@contextmanager
def clone() -> Iterator[Clone]:
    """Clone the committed tree into a temporary folder; stop and remove it all afterwards."""
    # Ray's socket paths must stay under 107 bytes, hence the short prefix.
    folder = Path(tempfile.mkdtemp(prefix="rlb-"))
    root = folder / "raylora"
    subprocess.run(
        ["git", "clone", "--quiet", "--no-hardlinks", str(REPOSITORY), str(root)], check=True
    )
    made = Clone(root, folder / "home", folder / "cache")
    try:
        yield made
    finally:
        for pid in made.leftovers():
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue
        shutil.rmtree(folder, ignore_errors=True)
