"""The processes of a local head: start it detached, find all it started, end them."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psutil

MARKER = "RAYLORA_HEAD"
"""Variable every process of a head inherits; its value is the head's id."""

_DETACH = """
import subprocess, sys
child = subprocess.Popen(
    sys.argv[1:], start_new_session=True,
    stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=sys.stderr,
)
print(child.pid)
"""


def start_detached(
    argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path
) -> psutil.Process:
    """Start a process that outlives this one, in a session of its own, stdout and stderr to `log`.

    A short-lived parent stands between, so that the process is nobody's child: it gets no Ctrl-C
    meant for us and leaves us no zombie.
    """
    with log.open("wb") as file:
        parent = subprocess.run(
            [sys.executable, "-c", _DETACH, *argv],
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=file,
            check=True,
        )
    return psutil.Process(int(parent.stdout))


def find(pid: int, create_time: float) -> psutil.Process | None:
    """Return the running process, or None where the pid is free or by now somebody else's."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - create_time) < 0.01
        return process if same and is_alive(process) else None
    except psutil.Error:
        return None


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def family(head_id: str, temp_dir: Path, head: psutil.Process | None) -> list[psutil.Process]:
    """Return every process of a head but the head itself.

    Three marks, because none is on all of them: descent is lost when a parent dies, the inherited
    variable when a process rewrites its title over its environment, and the working directory
    when a job changes it.
    """
    found: set[psutil.Process] = set()
    if head is not None:
        with contextlib.suppress(psutil.Error):
            found.update(head.children(recursive=True))
    me = os.getpid()
    for process in psutil.process_iter():
        if process.pid != me and _bears(process, head_id, temp_dir):
            found.add(process)
    return [process for process in found if process != head and is_alive(process)]


def end(processes: Iterable[psutil.Process], *, grace_s: float) -> list[psutil.Process]:
    """Terminate, wait up to `grace_s` in all, kill the rest; return what survived even that."""
    listed = list(processes)
    for process in listed:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, left = psutil.wait_procs(listed, timeout=grace_s)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    _, left = psutil.wait_procs(left, timeout=2)
    return [process for process in left if is_alive(process)]


def _bears(process: psutil.Process, head_id: str, temp_dir: Path) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        if process.environ().get(MARKER) == head_id:
            return True
    with contextlib.suppress(psutil.Error, OSError):
        return Path(process.cwd()).is_relative_to(temp_dir)
    return False
