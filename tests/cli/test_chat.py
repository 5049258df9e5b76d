"""raylora chat against a small endpoint."""

import json
import signal
import time
from _thread import interrupt_main
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from threading import Barrier, Event, Thread
from typing import Any, cast

import pytest
from click.testing import CliRunner
from rich.console import Console

from raylora.cli.endpoint_client import Answer
from raylora.cli.main import cli
from raylora.cli.side_by_side import ask_all
from raylora.errors import RayloraError

CARDS = [
    {"id": "tiny", "root": "tiny", "parent": None},
    {"id": "home", "root": "home@2", "parent": "tiny"},
]


class Endpoint(ThreadingHTTPServer):
    """Answers with the name and the messages it was sent; `breaks` ends streams early."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[dict[str, Any]] = []
        self.breaks: dict[str, Any] | None = None
        self.broken_model: str | None = None
        """The one whose answers break; None for all."""
        self.together: Barrier | None = None
        """Answers wait here for each other."""
        self.authorizations: list[str | None] = []
        self.refuses = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    @property
    def endpoint(self) -> Endpoint:
        return cast(Endpoint, self.server)

    def do_GET(self) -> None:
        cards = {f"/v1/models/{card['id']}": card for card in CARDS}
        known: dict[str, Any] = {
            **cards,
            "/v1/models": {"data": CARDS},
            "/v1/adapters/home@2": {"id": "home@2", "system_prompt": "Be brief."},
        }
        if self.path in known:
            self.reply(200, json.dumps(known[self.path]))
        else:
            self.reply(404, json.dumps({"error": {"message": f"no model {self.path}"}}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.endpoint.bodies.append(body)
        self.endpoint.authorizations.append(self.headers["Authorization"])
        if self.endpoint.refuses:
            self.reply(401, json.dumps({"error": {"message": "send a key"}}))
            return
        if self.endpoint.together is not None:
            self.endpoint.together.wait(5)
        model = "home@2" if body["model"] == "home" else body["model"]
        chunks: list[dict[str, Any]] = [
            {"model": model, "choices": [{"delta": {"content": piece}, "finish_reason": None}]}
            for piece in ("[bold]", "said ", body["messages"][-1]["content"])
        ]
        breaks = self.endpoint.broken_model in (None, body["model"])
        if self.endpoint.breaks is not None and breaks:
            chunks = [chunks[0], self.endpoint.breaks]
        else:
            chunks.append({"model": model, "choices": [{"delta": {}, "finish_reason": "stop"}]})
            usage = {"completion_tokens": 3}
            chunks.append({"model": model, "choices": [], "usage": usage})
        events = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
        self.reply(200, events + "data: [DONE]\n\n")

    def reply(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def chat(endpoint: Endpoint, *arguments: str, **extra: Any):
    return CliRunner().invoke(cli, ["chat", *arguments, "--endpoint", endpoint.url], **extra)


def test_an_answer_is_streamed_to_stdout_and_its_version_to_stderr(endpoint):
    result = chat(endpoint, "hello", "-m", "home")
    assert result.exit_code == 0
    assert result.stdout == "[bold]said hello\n"
    assert "home@2: 3 tokens" in result.stderr


def test_the_first_adapter_and_its_own_system_prompt_are_taken(endpoint):
    chat(endpoint, "hello")
    [body] = endpoint.bodies
    assert body["model"] == "home"
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert body["temperature"] == 0


@pytest.mark.parametrize(
    ("option", "first"),
    [
        (["--system", "Sing."], {"role": "system", "content": "Sing."}),
        (["--no-system"], {"role": "user", "content": "hello"}),
    ],
)
def test_the_system_prompt_can_be_another_or_none(endpoint, option, first):
    chat(endpoint, "hello", "-m", "home", *option)
    assert endpoint.bodies[0]["messages"][0] == first


def test_several_models_get_the_same_prompt_and_answer_side_by_side(endpoint):
    result = chat(endpoint, "hello", "-m", "tiny", "-m", "home", "--output", "json")
    answers = json.loads(result.stdout)
    assert [answer["model"] for answer in answers] == ["tiny", "home@2"]
    assert endpoint.bodies[0]["messages"] == endpoint.bodies[1]["messages"]


def test_a_conversation_remembers_what_was_said(endpoint):
    result = chat(endpoint, "-m", "tiny", "--no-system", input="one\n\ntwo\n/exit\nthree\n")
    assert result.stdout == "[bold]said one\n[bold]said two\n"
    assert [message["content"] for message in endpoint.bodies[1]["messages"]] == [
        "one",
        "[bold]said one",
        "two",
    ]


def test_an_unknown_model_is_an_error_with_the_endpoints_words(endpoint):
    result = chat(endpoint, "hello", "-m", "nobody")
    assert result.exit_code == 5
    assert "no model" in result.stderr


@pytest.mark.parametrize("event", [{"error": {"message": "device lost"}}, {"choices": []}])
def test_a_broken_answer_is_an_error(endpoint, event):
    endpoint.breaks = {"model": "tiny", **event}
    result = chat(endpoint, "hello", "-m", "tiny", "--no-system")
    assert result.exit_code == 1
    assert "device lost" in result.stderr or "broke the answer off" in result.stderr


def test_an_endpoint_that_is_not_there_exits_3():
    result = CliRunner().invoke(cli, ["chat", "hello", "--endpoint", "http://127.0.0.1:9"])
    assert result.exit_code == 3


def test_models_are_asked_at_the_same_time(endpoint):
    endpoint.together = Barrier(3)
    models = ("-m", "tiny", "-m", "home", "-m", "home@2")
    result = chat(endpoint, "hello", "--no-system", *models)
    assert result.exit_code == 0
    assert not endpoint.together.broken
    [titles, *_] = result.stdout.splitlines()
    assert titles.split() == ["tiny", "home@2", "home@2"]
    assert result.stdout.count("said hello") == 3
    assert result.stdout.count("3 tokens, first after") == 3


def test_one_that_fails_leaves_the_others_their_answers(endpoint):
    endpoint.breaks = {"model": "home@2", "error": {"message": "device lost"}}
    endpoint.broken_model = "home"
    result = chat(endpoint, "hello", "-m", "tiny", "-m", "home")
    assert result.exit_code == 1
    assert "said hello" in result.stdout
    assert "device lost" in result.stdout
    assert "device lost" in result.stderr


def test_columns_grow_on_a_terminal_while_the_answers_are_written():
    out = StringIO()
    told = Event()

    def slow(show) -> Answer:
        show("first ")
        deadline = time.monotonic() + 5
        while "first" not in out.getvalue():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        told.set()
        show("second")
        return Answer("home@2", "first second", "stop", 2, 1.0, 0.5)

    console = Console(file=out, force_terminal=True, width=80)
    [column] = ask_all(["home"], [slow], console)
    assert told.is_set()
    assert column.title == "home@2"
    assert out.getvalue().rstrip().count("first second") >= 1


def test_whatever_goes_wrong_stays_in_its_column():
    def broken(show) -> Answer:
        raise ValueError("no JSON")

    def right(show) -> Answer:
        return Answer("home@2", "fine", "stop", 1, 1.0, 0.5)

    out = StringIO()
    first, second = ask_all(["tiny", "home"], [broken, right], Console(file=out, width=80))
    assert "no JSON" in str(first.error)
    assert second.answer is not None
    assert "fine" in out.getvalue()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell starts what is to run in the background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_does_not_wait_for_the_answers():
    ended = Event()

    def endless(show) -> Answer:
        interrupt_main()
        ended.wait(20)
        raise RayloraError("nobody reads this")

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ask_all(["tiny"], [endless], Console(file=StringIO()))
    assert time.monotonic() - started < 5
    ended.set()


def test_a_key_is_sent_from_the_environment(endpoint, monkeypatch):
    monkeypatch.setenv("RAYLORA_API_KEY", "rl-mine")
    chat(endpoint, "hello", "-m", "tiny", "--no-system")
    assert endpoint.authorizations == ["Bearer rl-mine"]


def test_a_refused_key_exits_4_and_names_the_variable(endpoint):
    endpoint.refuses = True
    result = chat(endpoint, "hello", "-m", "tiny", "--no-system")
    assert result.exit_code == 4
    assert "RAYLORA_API_KEY" in result.stderr
