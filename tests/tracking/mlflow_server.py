"""Real servers for tests: `mlflow server` over any store, and a PostgreSQL of the test's own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

POSTGRES = Path("/usr/lib/postgresql")
USER = "nobody"
"""Who PostgreSQL runs as where the tests run as root, which it refuses."""


ADMIN, PASSWORD = "admin", "not-the-shipped-one"


@contextmanager
def mlflow_server(
    folder: Path,
    store: str = "",
    *,
    port: int = 0,
    options: tuple[str, ...] = (),
    settings: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Within: an MLflow server that hands out artifacts itself; its URL."""
    port = port or free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", *options]
    command += ["--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", store or f"sqlite:///{folder / 'server.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = folder / "log.txt"
    with log.open("ab") as said:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | quiet | dict(settings or {}),
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        # Its session is its own, so the group is the server and the workers it forked.
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@contextmanager
def guarded_server(folder: Path) -> Iterator[str]:
    """Within: the same, that only ADMIN may use, with PASSWORD."""
    ini = folder / "auth.ini"
    ini.write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/auth.db\n"
        f"admin_username = {ADMIN}\nadmin_password = {PASSWORD}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    settings = {
        "MLFLOW_AUTH_CONFIG_PATH": str(ini),
        "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN,
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "secret",
    }
    options = ("--app-name", "basic-auth")
    with mlflow_server(folder, options=options, settings=settings) as url:
        yield url


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Within: a PostgreSQL on loopback; its URI. Without one installed the test is left out."""
    bins = sorted(POSTGRES.glob("*/bin"))
    if not bins:
        pytest.skip(f"no PostgreSQL in {POSTGRES}: install Debian's postgresql to run this")
    data, port = folder / "data", free_port()
    data.mkdir()
    user: dict[str, Any] = {"user": USER, "group": "nogroup"} if os.getuid() == 0 else {}
    if user:
        shutil.chown(data, **user)
        for parent in (folder, *folder.parents):
            if parent.stat().st_uid == os.getuid() and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o011)
    init = [str(bins[-1] / "initdb"), "-D", str(data), "-U", "mlflow", "-A", "trust", "-N"]
    subprocess.run(init, check=True, capture_output=True, cwd="/", **user)
    serve = [str(bins[-1] / "postgres"), "-D", str(data), "-h", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(
        [*serve, "-k", "", "-F"],
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **user,
    )
    try:
        ready = [str(bins[-1] / "pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-q"]
        deadline = time.monotonic() + 60
        while subprocess.run(ready, check=False).returncode:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert process.poll() is None, log.read_text("utf-8")
            assert time.monotonic() < deadline, log.read_text("utf-8")
            time.sleep(0.2)
