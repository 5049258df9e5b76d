"""MLflow's own pages over a local store: one server on loopback, for as long as somebody looks."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from raylora.config.credentials import shown
from raylora.errors import MissingExtra, RayloraError
from raylora.tracking.location import database_file
from raylora.tracking.store import SETTINGS

HOST = "127.0.0.1"
START_SECONDS = 120.0
"""It imports for about 10 s, and longer on a busy machine."""
STOP_SECONDS = 10.0
STATE = ".mlflow-ui.json"
"""Beside the database: where its server listens."""
QUIET = SETTINGS | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


@dataclass(frozen=True)
class UiServer:
    """A server of MLflow's pages."""

    url: str
    pid: int


def running(uri: str) -> UiServer | None:
    """The one that serves a local store already; None where there is none."""
    file = database_file(uri)
    if file is None:
        return None
    with suppress(OSError, ValueError, TypeError):
        found = UiServer(**json.loads(file.with_name(STATE).read_text(encoding="utf-8")))
        return found if _answers(found.url) else None
    return None


@contextmanager
def serving(uri: str, port: int) -> Iterator[UiServer]:
    """Within: a server of the store listens on the port, or on a free one where it is taken.

    Raises MissingExtra without full mlflow, and RayloraError where it does not start.
    """
    if importlib.util.find_spec("flask") is None:  # mlflow-skinny lacks it
        raise MissingExtra("train", "MLflow's pages")
    file = database_file(uri)
    url = f"http://{HOST}:{_free(port)}"
    process = _start(uri, url)
    server = UiServer(url, process.pid)
    try:
        _wait_for(process, url, uri)
        if file is not None:
            file.with_name(STATE).write_text(json.dumps(asdict(server)), encoding="utf-8")
        yield server
    finally:
        if file is not None:
            file.with_name(STATE).unlink(missing_ok=True)
        _stop(process)


def _start(uri: str, url: str) -> subprocess.Popen[bytes]:
    # -P: a file in the current folder must not take the place of a package.
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--workers", "1"]
    command += ["--host", HOST, "--port", url.rpartition(":")[2]]
    # In the environment the address's password is not shown by `ps`.
    environment = os.environ | QUIET | {"MLFLOW_BACKEND_STORE_URI": uri}
    file = database_file(uri)
    return subprocess.Popen(
        command,
        # MLflow makes ./mlruns and ./mlartifacts where it is started.
        cwd=file.parent if file else Path.home(),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _wait_for(process: subprocess.Popen[bytes], url: str, uri: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _answers(url):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RayloraError(
                f"MLflow's server of {shown(uri)} did not start",
                hint=f"see why: mlflow server --backend-store-uri {shown(uri)} --host {HOST}",
            )
        time.sleep(0.2)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Its session is its own: the group is the server and the workers that it forked."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
            return


def _free(port: int) -> int:
    for wanted in (port, 0):
        with suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, wanted))
            return probe.getsockname()[1]
    raise RayloraError(f"no port of {HOST} is free")


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2).is_success
    except httpx.HTTPError:
        return False
