"""What the bars of serving ask over HTTP, of an endpoint with a tiny base in this process."""

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from benchmarks.bars import openai_client
from benchmarks.bars.smollm2 import Base
from benchmarks.serve import alias, clients, cold, http, limits
from benchmarks.serve.adapter_files import write_adapter
from benchmarks.serve.generators import Workload
from benchmarks.serve.prompts import stories
from transformers import LlamaForCausalLM

from raylora.config.serve_spec import BatchingSpec
from raylora.engine.generator import Engine
from raylora.lora.bank.bank import Bank
from raylora.lora.base import load_tokenizer
from raylora.lora.sources import LocalModel
from raylora.serve.adapters.catalogue import Catalogue
from raylora.serve.adapters.folders import Folders
from raylora.serve.adapters.residency import Residency
from raylora.serve.adapters.shelf import BankSlots
from raylora.serve.engine_thread import EngineThread
from raylora.serve.http.endpoint import Endpoint
from raylora.serve.http.openai_api import create_app
from raylora.tracking.adapters.version import AdapterSummary

NAMES = ("moved", "cold", "asked")
VERSIONS = 2


class Served:
    """In the place of a sandbox's endpoint."""

    def __init__(self, base: Base, folder: Path) -> None:
        self.base = base
        self.url = ""
        self.aliases: dict[str, int] = dict.fromkeys(NAMES, 1)
        self._folder = folder

    def point(self, name: str, version: int) -> None:
        self.aliases[name] = version

    def list(self) -> list[AdapterSummary]:
        return [
            AdapterSummary(name, VERSIONS, {"champion": at}, datetime(2026, 1, 1, tzinfo=UTC))
            for name, at in self.aliases.items()
        ]

    def fetch(self, reference: str) -> Path:
        directory = self._folder / reference
        if not directory.exists():
            write_adapter(directory, self.base.local, seed=int(reference[-1]))
        return directory


@pytest.fixture
def served(tiny_base: Path, tiny_model: LlamaForCausalLM, tmp_path: Path) -> Iterator[Served]:
    base = Base(LocalModel(tiny_base, "tiny", "0", "tiny"), load_tokenizer_of(tiny_base))
    made = Served(base, tmp_path)
    bank = Bank(tiny_model)
    engine = Engine(tiny_model, base.tokenizer, bank, max_batch_size=4)
    thread = EngineThread(engine, step_timeout_s=60)
    thread.start()
    endpoint = Endpoint(
        base="tiny",
        fingerprint="fp",
        tokenizer=base.tokenizer,
        max_length=512,
        batching=BatchingSpec(max_batch_size=4, max_queue=4, default_max_tokens=16),
        engine=thread,
        residency=Residency(
            "tiny",
            Catalogue(made.list, fresh_s=0.1),
            made,
            BankSlots(bank, thread, 2),
            folders=Folders(None, tmp_path / "folders"),
        ),
    )
    config = uvicorn.Config(create_app(endpoint), host="127.0.0.1", port=0, log_level="error")
    server = uvicorn.Server(config)
    running = threading.Thread(target=server.run)
    running.start()
    while not server.started:
        time.sleep(0.01)
    made.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    yield made
    server.should_exit = True
    running.join()
    thread.stop()


def load_tokenizer_of(path: Path) -> Any:
    return load_tokenizer(LocalModel(path, "tiny", "0", "tiny"))


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [{"role": "user", "content": "hello"}]
    for module in (alias, cold, clients):
        monkeypatch.setattr(module, "conversations", lambda count: [messages] * count)


def test_an_alias_that_moves_is_followed(served: Served, monkeypatch: pytest.MonkeyPatch):
    for name, value in {"MOVES": 3, "EVERY_S": 0.5, "VERSIONS": 2, "WITHIN_S": 0.4}.items():
        monkeypatch.setattr(alias, name, value)
    replies, moves, texts = asyncio.run(alias._moved(served))  # type: ignore[arg-type]
    assert [move.version for move in moves] == [1, 2, 1, 2]
    found = alias.judge(replies, moves, texts, 30)
    assert (found.failed, found.wrong) == (0, 0)
    versions = {reply.body["model"] for reply in replies}
    assert versions == {"moved@1", "moved@2"}


def test_first_tokens_are_timed(served: Served, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cold, "VERSIONS", 2)
    late, soon, known = asyncio.run(cold._asked(served))  # type: ignore[arg-type]
    assert len(late) == len(soon) == len(known) == 2
    assert all(seconds > 0 for seconds in late + soon + known)


def test_a_client_that_goes_makes_room(served: Served, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "BATCH", 4)
    step = Engine.step

    def slow(engine: Engine) -> Any:
        time.sleep(0.005)  # so that nobody is done before the one who goes
        return step(engine)

    monkeypatch.setattr(Engine, "step", slow)
    told = asyncio.run(limits._gone(served, served.base))  # type: ignore[arg-type]
    assert told >= 0


def test_overload_is_answered_or_shed(served: Served, monkeypatch: pytest.MonkeyPatch):
    for name, value in {"BATCH": 4, "CAPACITY_S": 1.0, "OVERLOAD_S": 0.5, "ROUNDS": 2}.items():
        monkeypatch.setattr(limits, name, value)
    rounds = asyncio.run(
        limits._overloaded(served, served.base)  # type: ignore[arg-type]
    )
    assert len(rounds) == 2
    for capacity, replies in rounds:
        assert capacity > 0
        assert {reply.status for reply in replies} <= {200, 429}


def test_streams_and_clients(served: Served):
    work = Workload([None] * 2, stories(served.base, 2), [6, 6])
    rate, tokens = asyncio.run(http._streamed(served.url, served.base, work))
    assert rate > 0
    assert all(1 <= count <= 6 for count in tokens)
    report = asyncio.run(clients._report(served))  # type: ignore[arg-type]
    checks = dict(check() for check in openai_client.conversations(served.url, report))
    assert checks["chat.completions"] and checks["alias names its version"]
    assert checks["unknown model is 404"]
