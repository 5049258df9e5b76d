"""The endpoint on a real cluster: up, asked by its command line, and down without a trace."""

import json
import socket
import time
from collections.abc import Callable, Iterator
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
def endpoint(
    local_cluster: Cluster, model: ModelSpec, outputs: Path, raylora: Callable[..., str]
) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    told = raylora(
        "serve",
        "up",
        f"outputs={outputs}",
        f"port={port}",
        f"model.id={model.id}",
        "model.source=path",
        "model.name=tiny",
        "model.dtype=fp32",
        "model.max_length=256",
        "--output",
        "json",
    )
    yield json.loads(told)["url"]
    applications.shut_down(local_cluster)


def test_an_endpoint_goes_up_answers_and_leaves_nothing(
    endpoint: str,
    outputs: Path,
    model: ModelSpec,
    tmp_path: Path,
    local_cluster: Cluster,
    raylora: Callable[..., str],
):
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


def kill_replica_in_mid_stream(endpoint: str) -> None:
    """Its stream ends with an error event."""
    [replica] = [process for process in actors() if ":replica" in " ".join(process.cmdline())]
    body = {"model": "tones", "prompt": "hi", "max_tokens": 240, "logit_bias": {2: -100}}
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
    return [" ".join(process.cmdline()) for process in actors()]


def actors() -> list[psutil.Process]:
    state = head.running()
    assert state is not None
    # Those that start warm are children of another process than the head.
    family = processes.family(state.id, Path(state.temp_dir), state.process)
    return [process for process in family if is_serves(" ".join(process.cmdline()))]


def is_serves(title: str) -> bool:
    return title.startswith("ray::") and ("Serve" in title or "Proxy" in title)
