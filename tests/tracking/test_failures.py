import http.server
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from raylora.errors import MissingExtra, NotAuthorised, RayloraError, Unreachable
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.failures import translate
from raylora.tracking.runs import attach, list_runs, open_run

BODIES = {
    401: b"no",
    403: b'{"error_code": "PERMISSION_DENIED", "message": "not yours"}',
    500: b"",
}


@pytest.fixture
def answering(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server that answers every API request with one status."""
    status: int = request.param

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"OK" if self.path == "/health" else BODIES[status]
            self.send_response(200 if self.path == "/health" else status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def refusing() -> str:
    """An address where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and never answers, like a black hole."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("kind", ["refusing", "silent"])
def test_a_dead_server_is_noticed_in_time(kind: str, request: pytest.FixtureRequest) -> None:
    uri = request.getfixturevalue(kind)
    began = time.monotonic()
    with pytest.raises(Unreachable) as caught:
        list_runs(uri, limit=1)
    assert time.monotonic() - began < 8
    assert uri in str(caught.value)
    assert caught.value.exit_code == 3


def test_a_dead_server_is_noticed_by_everything_that_opens_it(refusing: str) -> None:
    with pytest.raises(Unreachable):
        open_run(refusing, "tests", "id", "name", params={}, tags={})
    with pytest.raises(Unreachable):
        attach(refusing, "id")
    with pytest.raises(Unreachable):
        Registry(refusing)


@pytest.mark.parametrize("answering", [401, 403], indirect=True)
def test_a_server_that_refuses_access(answering: str) -> None:
    with pytest.raises(NotAuthorised) as caught:
        list_runs(answering, limit=1)
    assert caught.value.exit_code == 4
    assert "MLFLOW_TRACKING_TOKEN" in str(caught.value.hint)
    with pytest.raises(NotAuthorised):
        Registry(answering).resolve("home@1")


@pytest.mark.parametrize("answering", [500], indirect=True)
def test_a_server_that_fails(answering: str) -> None:
    with pytest.raises(Unreachable):
        list_runs(answering, limit=1)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database at all, far from it")
    with pytest.raises(Unreachable, match="does not answer"):
        list_runs(f"sqlite:///{tmp_path / 'mlflow.db'}", limit=1)


def test_without_full_mlflow_the_local_store_names_the_extra() -> None:
    error = translate(ModuleNotFoundError("no", name="sqlalchemy.orm"), "sqlite:////x.db")
    assert isinstance(error, MissingExtra)
    assert error.hint == "pip install 'raylora[train]'"


def test_what_is_not_of_a_lower_library_is_left_alone() -> None:
    assert translate(ValueError("ours"), "http://x") is None
    assert translate(ModuleNotFoundError("no", name="elsewhere"), "http://x") is None


def test_messages_keep_credentials_out_and_stay_short() -> None:
    from mlflow.exceptions import MlflowException

    uri = "http://me:secret@host:1"
    error = translate(MlflowException(f"request to {uri}/api failed\nlong\ntrace"), uri)
    assert isinstance(error, RayloraError)
    assert "secret" not in str(error)
    assert "\n" not in str(error)


def test_an_outdated_database_says_how_to_upgrade() -> None:
    from mlflow.exceptions import MlflowException

    error = translate(MlflowException("Run 'mlflow db upgrade <uri>'"), "sqlite:////x.db")
    assert isinstance(error, Unreachable)
    assert error.hint == "back it up, then run: mlflow db upgrade sqlite:////x.db"
