"""Fixtures: one local head for the whole suite, a second node, dashboards that are not there."""

import json
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from raylora.cluster import head, processes
from raylora.cluster.connect import Cluster, connect
from raylora.cluster.jobs import JobClient

Answer = tuple[int, Any]


@pytest.fixture(scope="session")
def local_cluster(_own_home: None) -> Iterator[Cluster]:
    """The suite's local head, started by the first test that wants it. Mark such tests `ray`."""
    yield connect(None)
    head.stop()


@pytest.fixture
def second_node(
    local_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Another raylet on this machine: a cluster of two nodes."""
    state = head.running()
    assert state is not None
    folder = Path(tempfile.mkdtemp(dir=state.temp_dir))
    ports = ("node-manager", "object-manager", "dashboard-agent-grpc", "dashboard-agent-listen")
    ports += ("runtime-env-agent", "min-worker", "max-worker")
    node = processes.start_detached(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block"),
            f"--address={state.gcs_address}",
            f"--node-ip-address={state.gcs_address.split(':')[0]}",
            *(f"--{name}-port=0" for name in ports),
            "--metrics-export-port=0",
            "--num-cpus=1",
            "--object-store-memory=100000000",
            f"--temp-dir={folder}",
            "--disable-usage-stats",
        ],
        env=os.environ
        | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": state.token_path,
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
            processes.MARKER: state.id,
        },
        cwd=folder,
        log=folder / "log",
    )
    client = JobClient(local_cluster)
    deadline = time.monotonic() + 60
    while len(client.nodes()) < 2:
        assert time.monotonic() < deadline, (folder / "log").read_text("utf-8")
        time.sleep(0.3)
    yield
    processes.end([node], grace_s=15)


@pytest.fixture
def silent_dashboard() -> Iterator[str]:
    """Accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def dashboard() -> Iterator[Callable[[Callable[[str, str, str | None], Answer]], str]]:
    """Serve a function (method, path, authorization) -> (status, JSON); gives the URL."""
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Callable[[str, str, str | None], Answer]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply("GET")

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.reply("POST")

            def reply(self, method: str) -> None:
                status, body = answer(method, self.path, self.headers.get("Authorization"))
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
