"""An endpoint with an engine that repeats the prompt, and a registry in memory."""

import threading
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from raylora.config.serve_spec import BatchingSpec
from raylora.engine.logprobs import TokenLogprob
from raylora.engine.request import Completion, Event, FinishReason, Request
from raylora.engine.row import Row
from raylora.engine.stats import EngineStats
from raylora.errors import InvalidAdapter, NotFound
from raylora.lora.integrity import AdapterFacts
from raylora.serve.adapters.catalogue import Catalogue
from raylora.serve.adapters.folders import Folders
from raylora.serve.adapters.loading import MakeRoom
from raylora.serve.adapters.residency import Residency
from raylora.serve.engine_thread import EngineThread
from raylora.serve.http.endpoint import Endpoint, fingerprint
from raylora.tracking.adapters.version import AdapterSummary

BASE = "tiny"
LENGTH = 1000
"""Tokens of its context."""
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}\n{% endfor %}"
    "{% if messages[-1]['role'] == 'assistant' %}{{ raise_exception('ends with an answer') }}"
    "{% endif %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


STATS = EngineStats(
    waiting=1,
    prefilling=2,
    running=3,
    steps=40,
    prefilled_tokens=50,
    reused_tokens=60,
    prefix_hits=7,
    decoded_tokens=80,
    kv_bytes=9000,
    prefix_bytes=1000,
    kv_budget=10_000,
)


class EchoEngine:
    """Answers with the adapter's key and the prompt, one token a step, then the end token."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.rows: dict[str, tuple[Row, list[int]]] = {}
        self.cancelled: list[str] = []
        self.may_step = threading.Event()
        self.may_step.set()
        self.requests: list[Request] = []
        self.fails_after = -1
        self.fails_for: set[str] = set()
        self.step_seconds = 0.0
        self.stats = STATS

    @property
    def has_work(self) -> bool:
        return bool(self.rows)

    def add(self, request: Request) -> None:
        self.requests.append(request)
        reply = self.tokenizer.encode(f"[{request.adapter or 'base'}] ")
        reply += [*request.prompt_ids, self.tokenizer.eos_token_id]
        row = Row(request, self.tokenizer, 10_000)
        row.begun = time.monotonic()
        self.rows[request.id] = (row, reply)

    def cancel(self, request_id: str) -> None:
        self.cancelled.append(request_id)
        self.rows.pop(request_id, None)

    def step(self) -> list[Event]:
        self.may_step.wait(10)
        time.sleep(self.step_seconds)
        events: list[Event] = []
        for row, reply in list(self.rows.values()):
            if len(row.tokens) == self.fails_after or row.request.adapter in self.fails_for:
                failure = Completion(row.id, "", (), FinishReason.ERROR, 0, error="no luck")
                events.append(Event(row.id, "", failure))
            else:
                token = reply[len(row.tokens)]
                events += row.accept(token, {self.tokenizer.eos_token_id}, _logprob(row, token))
            if events and events[-1].id == row.id and events[-1].completion:
                del self.rows[row.id]
        return events


def _logprob(row: Row, token: int) -> TokenLogprob | None:
    """Each token is certain, and the next ones in the vocabulary come after it."""
    top = row.request.sampling.logprobs
    if top is None:
        return None
    return TokenLogprob(token, -0.5, tuple((token + i, -0.5 - i) for i in range(top)))


@dataclass
class MemoryRegistry:
    """Names, versions and aliases; also the disk they come from."""

    summaries: dict[str, AdapterSummary] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    reads: int = 0
    fetched: list[str] = field(default_factory=list)
    folders: dict[str, Path] = field(default_factory=dict)
    """Where some versions lie; the others have no files."""
    held_back: set[str] = field(default_factory=set)
    """Only these wait until they may be fetched; all do while there are none."""
    may_fetch: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.may_fetch.set()

    def put(self, name: str, newest: int, **aliases: int) -> None:
        self.summaries[name] = AdapterSummary(name, newest, aliases, LONG_AGO)

    def list(self) -> list[AdapterSummary]:
        self.reads += 1
        return list(self.summaries.values())

    def fetch(self, reference: str) -> Path:
        self.fetched.append(reference)
        if not self.held_back or reference in self.held_back:
            self.may_fetch.wait(5)
        if reference in self.broken:
            raise InvalidAdapter(f"{reference}: made for another base")
        return self.folders.get(reference, Path(reference))


def facts(system_prompt: str) -> AdapterFacts:
    return AdapterFacts(
        r=8,
        alpha=16,
        targets=("q_proj",),
        layers=1,
        parameters=500,
        dtype="F32",
        bytes=2000,
        sha256="",
        content="",
        base=BASE,
        base_revision=None,
        lineage={"data": {"system_prompt": system_prompt}, "quantization": "nf4"},
    )


class MemorySlots:
    """A bank of two places, in which an adapter takes 100 bytes."""

    def __init__(self) -> None:
        self.capacity = 2
        self.keys: list[str] = []
        self.broken: set[str] = set()

    async def add(
        self, key: str, directory: Path, make_room: MakeRoom, *, manifest_required: bool = True
    ) -> AdapterFacts:
        if key in self.broken:
            raise InvalidAdapter(f"{key}: made for another base")
        await make_room(100)
        self.keys.append(key)
        return facts(f"You are {key}.")

    async def remove(self, key: str) -> None:
        self.keys.remove(key)

    def tier(self, key: str) -> str:
        if key not in self.keys:
            raise NotFound(f"adapter {key} is not loaded")
        return "device"


@pytest.fixture
def registry() -> MemoryRegistry:
    made = MemoryRegistry()
    made.put("home", 3, champion=2, next=3)
    made.put("sums", 1)
    return made


@pytest.fixture
def slots() -> MemorySlots:
    return MemorySlots()


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    root = tmp_path / "allowed"
    root.mkdir()
    return Folders(root, tmp_path / "copies")


@pytest.fixture
def residency(registry: MemoryRegistry, slots: MemorySlots, folders: Folders) -> Residency:
    return Residency(BASE, Catalogue(registry.list, fresh_s=2), registry, slots, folders=folders)


@pytest.fixture
def engine(tiny_tokenizer: Any) -> EchoEngine:
    tokenizer = deepcopy(tiny_tokenizer)
    tokenizer.chat_template = CHAT_TEMPLATE
    return EchoEngine(tokenizer)


@pytest.fixture
def endpoint(engine: EchoEngine, residency: Residency) -> Iterator[Endpoint]:
    thread = EngineThread(engine, step_timeout_s=60)
    thread.start()
    yield Endpoint(
        base=BASE,
        fingerprint=fingerprint(base=BASE),
        tokenizer=engine.tokenizer,
        max_length=LENGTH,
        batching=BatchingSpec(max_batch_size=2, max_queue=1, request_timeout_s=5),
        engine=thread,
        residency=residency,
    )
    engine.may_step.set()
    thread.stop()
