"""A child process that speaks JSON lines on stdout, each with the moment it was heard."""

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

Line = dict[str, Any]


@dataclass
class Child:
    """A running program."""

    process: "subprocess.Popen[str]"
    started: float
    """On the monotonic clock."""
    _errors: IO[str]
    _said: deque[str] = field(default_factory=lambda: deque[str](maxlen=30))

    def heard(self) -> Iterator[tuple[float, Line]]:
        """Seconds since the start, and the JSON object; other lines are passed over."""
        assert self.process.stdout is not None
        for text in self.process.stdout:
            self._said.append(text)
            at = text.find("{")
            if at < 0:
                continue
            try:
                line, _ = json.JSONDecoder().raw_decode(text[at:])
            except ValueError:
                continue
            yield time.monotonic() - self.started, line

    def tell(self, text: str) -> None:
        """Write a line to the program's stdin."""
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def fault(self, what: str) -> RuntimeError:
        """An error with the end of what the program said."""
        code = self.process.poll()
        self._errors.flush()
        self._errors.seek(0)
        said = "".join(self._said)[-2000:] + self._errors.read()[-2000:]
        return RuntimeError(f"{what} (exit {code}):\n{said.strip()}")


@contextmanager
def child(
    command: Sequence[str],
    folder: Path,
    environment: dict[str, str],
    timeout_s: float,
    *,
    whole_group: bool = False,
) -> Iterator[Child]:
    """Start a program; it is killed at the end of the block or of the time.

    whole_group: and with it what it has started, which some programs leave behind.
    """
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=whole_group,
        ) as process,
    ):
        limit = threading.Timer(timeout_s, process.kill)
        limit.start()
        try:
            yield Child(process, time.monotonic(), errors)
        finally:
            limit.cancel()
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
            if whole_group:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
