"""This checkout's own raylora with a home and outputs of its own."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bars.footprint import processes


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
            tail = _tail(self.stdout, self.stderr)
            raise RuntimeError(f"exit {self.code}, expected {code}:\n{tail}")
        return self


class TookTooLong(RuntimeError):
    """A command was killed at its limit; the message has the end of its output."""


@dataclass(frozen=True)
class Sandbox:
    """A folder to work in; the model cache is the user's, all else is the sandbox's."""

    folder: Path

    @property
    def home(self) -> Path:
        """RAYLORA_HOME, which marks every process started here."""
        return self.folder / "home"

    @property
    def environment(self) -> dict[str, str]:
        """The caller's environment with Ray's and raylora's settings taken out."""
        return own_environment() | {"RAYLORA_HOME": str(self.home)}

    def raylora(self, *arguments: str, timeout_s: float = 120) -> Finished:
        """Run this checkout's raylora in the folder."""
        raylora = str(Path(sys.executable).with_name("raylora"))
        return run((raylora, *arguments), self.folder, self.environment, timeout_s)


def run(
    command: tuple[str, ...], folder: Path, environment: dict[str, str], timeout_s: float
) -> Finished:
    """Run a command; its output is kept whatever its exit code. Raises TookTooLong."""
    started = time.monotonic()
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        tail = _tail(_text(late.stdout), _text(late.stderr))
        raise TookTooLong(f"{shlex.join(command)} took over {timeout_s} s:\n{tail}") from late
    return Finished(done.returncode, done.stdout, done.stderr, time.monotonic() - started)


def _tail(stdout: str, stderr: str) -> str:
    """The end of an output."""
    return (stdout[-1500:] + "\n" + stderr[-1500:]).strip()


def _text(output: bytes | str | None) -> str:
    """Of a command that was killed subprocess tells bytes, whatever was asked for."""
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


FOREIGN = ("RAY_", "RAYLORA_", "MAKE", "MFLAGS")


def own_environment() -> dict[str, str]:
    """The caller's environment without settings that would reach another cluster or home.

    Nor make's own: a make that knows of another above it says so on stdout.
    """
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(FOREIGN) or key == "RAYLORA_CACHE"
    }
    return kept | {"TTY_COMPATIBLE": "0"}


@contextmanager
def sandbox() -> Iterator[Sandbox]:
    """A temporary folder; whatever was started in it is stopped afterwards."""
    # Ray's socket paths must stay under 107 bytes, hence the short prefix.
    folder = Path(tempfile.mkdtemp(prefix="rlb-"))
    box = Sandbox(folder)
    try:
        yield box
    finally:
        if (box.home / "head").exists():
            # A head that is killed leaves its temporary folder behind.
            with suppress(TookTooLong):
                box.raylora("cluster", "down")
        kill(box.home)
        shutil.rmtree(folder, ignore_errors=True)


def kill(home: Path) -> None:
    """Kill every process that carries this RAYLORA_HOME."""
    for pid in processes(home):
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            continue
