"""The endpoint on a real cluster: up, asked by its command line, and down without a trace."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest
from click.testing import CliRunner
from tests.registered import register

from raylora.cli.main import cli
from raylora.cluster import applications, head, processes
from raylora.cluster.connect import Cluster
from raylora.config.model_spec import DType, ModelSource, ModelSpec

SYSTEM = "Answer in JSON."
pytestmark = pytest.mark.ray


@pytest.fixture
def model(tiny_base: Path) -> ModelSpec:
    return ModelSpec(
        source=ModelSource.PATH, id=str(tiny_base), name="tiny", dtype=DType.FP32, max_length=256
    )


@pytest.fixture
def outputs(model: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An outputs folder whose registry has tones@1, the champion."""
    monkeypatch.setenv("RAYLORA_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "outputs"
    register(folder, model, tmp_path, "tones", SYSTEM)
    return folder


@pytest.fixture
def raylora() -> Callable[..., str]:
    """Run a command; its stdout."""

    def run(*arguments: str, exit_code: int = 0) -> str:
        result = CliRunner().invoke(cli, list(arguments))
        assert result.exit_code == exit_code, result.output
        return result.stdout

    return run


@pytest.fixture
def up(
    local_cluster: Cluster, model: ModelSpec, outputs: Path, raylora: Callable[..., str]
) -> Iterator[Callable[..., str]]:
    """Start an endpoint, with settings of one's own; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    given = (
        f"outputs={outputs}",
        f"port={port}",
        f"model.id={model.id}",
        "model.source=path",
        "model.name=tiny",
        "model.dtype=fp32",
        "model.max_length=256",
    )

    def start(*settings: str) -> str:
        told = raylora("serve", "up", *given, *settings, "--output", "json")
        return json.loads(told)["url"]

    yield start
    applications.shut_down(local_cluster)


def test_an_endpoint_goes_up_answers_and_leaves_nothing(
    up: Callable[..., str],
    outputs: Path,
    model: ModelSpec,
    tmp_path: Path,
    local_cluster: Cluster,
    raylora: Callable[..., str],
):
    endpoint = up()

    def chat(name: str) -> httpx.Response:
        body = {
            "model": name,
            "messages": [{"role": "user", "content": "hi"}],
            "temperature": 0,
            "max_tokens": 8,
        }
        return httpx.post(f"{endpoint}/chat/completions", json=body, timeout=60)

    answers = {name: chat(name) for name in ("tiny", "tones", "tones@1", "tones@champion")}
    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(
        answers, 200
    )
    assert answers["tiny"].json()["model"] == "tiny"
    by_adapter = [answers[name] for name in ("tones", "tones@1", "tones@champion")]
    assert {answer.headers["x-raylora-adapter"] for answer in by_adapter} == {"tones@1"}
    texts = {answer.json()["choices"][0]["message"]["content"] for answer in by_adapter}
    assert len(texts) == 1
    assert answers["tiny"].json()["choices"][0]["message"]["content"] not in texts
    assert len(serve_processes()) == 3  # controller, ingress, one replica
    unknown = chat("tonnes")
    assert unknown.status_code == 404
    assert "tones" in unknown.json()["error"]["message"]

    root = endpoint.removesuffix("/v1")
    spoken = json.loads(
        raylora("chat", "hi", "-m", "tiny", "-m", "tones", "--endpoint", root, "-o", "json")
    )
    assert [answer["model"] for answer in spoken] == ["tiny", "tones@1"]
    status = json.loads(raylora("serve", "status", "-o", "json"))
    assert status["applications"][0]["state"] == "RUNNING"
    assert [entry["system_prompt"] for entry in status["adapters"]] == [SYSTEM]

    # Promoted while it runs: asked for as tones@1 too, the old version stays beside the new one.
    assert register(outputs, model, tmp_path, "tones", SYSTEM, seed=2) == "tones@2"
    wait_until(lambda: chat("tones").headers["x-raylora-adapter"] == "tones@2", 15)
    assert loaded(endpoint) == {"tones@1", "tones@2"}

    kill_replica_in_mid_stream(endpoint)
    assert chat("tones").headers["x-raylora-adapter"] == "tones@2"
    assert loaded(endpoint) == {"tones@1", "tones@2"}

    other_port = raylora("serve", "up", "port=9", "-o", "json", exit_code=1)
    assert other_port == ""

    assert json.loads(raylora("serve", "down", "-o", "json")) == {"stopped": ["raylora"]}
    assert applications.status(local_cluster).applications == ()
    assert serve_processes() == []
    with pytest.raises(httpx.ConnectError):
        chat("tiny")


@pytest.mark.slow
def test_replicas_come_and_go_with_the_tokens_that_wait(up: Callable[..., str]):
    limits = "min_replicas:0,max_replicas:2,tokens_per_replica:300,up_after_s:0,down_after_s:5"
    endpoint = up(f"autoscaling={{{limits}}}", "cpus_per_replica=0.5")
    body = {"model": "tiny", "prompt": "hi", "max_tokens": 240, "logit_bias": {2: -100}}

    def ask(_: int) -> int:
        return httpx.post(f"{endpoint}/completions", json=body, timeout=120).status_code

    wait_until(lambda: not replicas(), 90)
    assert httpx.get(f"{endpoint.removesuffix('/v1')}/healthz").json()["replicas"] == 0
    with ThreadPoolExecutor(8) as clients:
        assert set(clients.map(ask, range(8))) == {200}  # one was started to answer them

        def are_two() -> bool:
            assert set(clients.map(ask, range(8))) == {200}
            return len(replicas()) == 2

        wait_until(are_two, 90)
    wait_until(lambda: not replicas(), 90)


def kill_replica_in_mid_stream(endpoint: str) -> None:
    """Its stream ends with an error event."""
    [replica] = replicas()
    # Sixteen answers: a fast machine had finished a single one before the replica was killed.
    body = {"model": "tones", "prompt": "hi", "max_tokens": 240, "n": 16, "logit_bias": {2: -100}}
    with httpx.stream(
        "POST", f"{endpoint}/completions", json={**body, "stream": True}, timeout=60
    ) as stream:
        events = stream.iter_lines()
        assert "text_completion" in next(events)
        replica.kill()
        *_, last = [line for line in events if line]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "replica_lost"


def loaded(endpoint: str) -> set[str]:
    entries = httpx.get(f"{endpoint}/adapters", timeout=60).json()["data"]
    return {entry["id"] for entry in entries if entry["state"] == "ready"}


def wait_until(condition: Callable[[], bool], limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def serve_processes() -> list[str]:
    """Titles of what the suite's own head runs for Ray Serve."""
    return [title(process) for process in actors()]


def replicas() -> list[psutil.Process]:
    return [process for process in actors() if ":replica" in title(process)]


def actors() -> list[psutil.Process]:
    state = head.running()
    assert state is not None
    # Those that start warm are children of another process than the head.
    family = processes.family(state.id, Path(state.temp_dir), state.process)
    return [process for process in family if is_serves(title(process))]


def title(process: psutil.Process) -> str:
    """Empty where it has just ended."""
    with suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


def is_serves(title: str) -> bool:
    return title.startswith("ray::") and ("Serve" in title or "Proxy" in title)
