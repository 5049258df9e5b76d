"""The engine over the bank without Ray, as told on stdin: what `generators.ours` runs.

    python -m benchmarks.serve.engine_program '{"model": DIR, "threads": 2, "batch": 16, ...}'

A line is {"do": NAME, ...}, the answer one JSON object. The base has no end token here, so that
every answer has the length that was asked for, as with the peers.
"""

import functools
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from raylora.config.model_spec import DType
from raylora.engine.generator import Engine
from raylora.engine.request import Completion, Request
from raylora.engine.sampling import Sampling
from raylora.lora.bank.bank import Bank
from raylora.lora.devices import pick
from raylora.lora.narrow import narrow
from raylora.serve.own_engine import leave_what_is_loaded

READ_BYTES = 512 << 20
"""More than any cache holds."""

Facts = dict[str, Any]


def main() -> None:
    """Until stdin ends."""
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(settings["threads"])
    bench = Bench(settings)
    _say({"ready": True})
    tasks: dict[str, Callable[..., Facts]] = {
        "generate": bench.generate,
        "in_turns": bench.in_turns,
        "serve": bench.serve,
        "register": bench.register,
        "load": bench.load,
        "first_token": bench.first_token,
        "bandwidth": bench.bandwidth,
        "memory": bench.memory,
        "cancel": bench.cancel,
    }
    for line in sys.stdin:
        told = json.loads(line)
        _say(tasks[told.pop("do")](**told))


class Bench:
    """A base, a bank and an engine."""

    def __init__(self, settings: Facts) -> None:
        dtype = pick().dtype(DType(settings["dtype"]))
        model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=dtype)
        model.requires_grad_(False).eval()
        narrow(model)  # as load_for_generation does
        tokenizer = AutoTokenizer.from_pretrained(settings["model"])
        model.generation_config.eos_token_id = None
        tokenizer.eos_token = None
        self._budget: int | None = settings["max_bytes"]
        budget: Facts = {} if self._budget is None else {"max_bytes": self._budget}
        self._bank: Any = Bank(model, **budget)
        for key, path in settings["adapters"].items():
            self._bank.add(key, Path(path))
        self._engine_of_its_own = functools.partial(
            Engine, model, tokenizer, self._bank, max_batch_size=settings["batch"]
        )
        self._engine = self._engine_of_its_own()
        self._engines = [self._engine]
        leave_what_is_loaded()
        self._asked = 0

    def generate(
        self, keys: list[str | None], prompts: list[list[int]], new_tokens: list[int]
    ) -> Facts:
        """Answer all of them at once; step_s is the median of steps without prompts."""
        done = _Pass(self._engines[0])
        done.begin(self._requests(keys, prompts, new_tokens))
        while done.step():
            pass
        return done.facts

    def in_turns(self, sides: list[Facts]) -> Facts:
        """Answer each side's as `generate` does, all at the same time, a step of each in turn.

        Whatever slows the machine down for a moment slows all of them.
        """
        while len(self._engines) < len(sides):
            self._engines.append(self._engine_of_its_own())
        passes = [_Pass(engine) for engine in self._engines[: len(sides)]]
        for own, side in zip(passes, sides, strict=True):
            own.begin(self._requests(**side))
        while any([own.step() for own in passes]):
            passes.reverse()
        facts = {id(own.engine): own.facts for own in passes}
        return {"sides": [facts[id(engine)] for engine in self._engines[: len(sides)]]}

    def serve(
        self, arrivals: list[float], prompts: list[list[int]], new_tokens: list[int]
    ) -> Facts:
        """Answer with the base as they arrive; seconds to each one's first token."""
        started = time.perf_counter()
        came: dict[str, float] = {}
        first: dict[str, float] = {}
        tokens = 0
        waiting = list(zip(arrivals, prompts, new_tokens, strict=True))[::-1]
        while waiting or self._engine.has_work:
            now = time.perf_counter() - started
            while waiting and waiting[-1][0] <= now:
                at, prompt, wanted = waiting.pop()
                came[self._add(None, prompt, wanted)] = at
            if not self._engine.has_work:
                time.sleep(max(0.0, waiting[-1][0] - now))
                continue
            events = self._engine.step()
            now = time.perf_counter() - started
            for event in events:
                # The text may lag behind the first token by a few, which counts against us.
                first.setdefault(event.id, now - came[event.id])
                tokens += len(_tokens(event.completion))
        return {
            "seconds": time.perf_counter() - started,
            "tokens": tokens,
            "first_s": list(first.values()),
        }

    def register(self, key: str, path: str) -> Facts:
        """Make one more adapter known."""
        started = time.perf_counter()
        self._bank.add(key, Path(path))
        return {"seconds": time.perf_counter() - started}

    def load(self, keys: list[str]) -> Facts:
        """Have known adapters in memory, as they are when their requests come often."""
        for key in keys:
            self._bank.reload(key)
        return {}

    def first_token(self, key: str, prompt: list[int]) -> Facts:
        """Seconds from the request to its first token, a load included where it needs one."""
        started = time.perf_counter()
        tier = str(self._bank.tier(key))
        self._bank.reload(key)
        self._add(key, prompt, 1)
        while self._engine.has_work:
            self._engine.step()
        return {"seconds": time.perf_counter() - started, "tier": tier}

    def cancel(self, prompts: list[list[int]]) -> Facts:
        """Steps from the moment that a full batch loses a request to its place being free."""
        ids = [self._add(None, prompt, 64) for prompt in prompts]
        while self._engine.waiting:
            self._engine.step()
        taken: list[int] = []
        for gone in ids[:-1]:
            running, steps = self._engine.running, 0
            self._engine.cancel(gone)
            while self._engine.running >= running:
                self._engine.step()
                steps += 1
            taken.append(steps)
        self._engine.cancel(ids[-1])
        self._engine.step()
        return {"steps": taken}

    def bandwidth(self) -> Facts:
        """Bytes a second at which these threads read memory: the best of five."""
        block = torch.ones(READ_BYTES // 4)
        best = float("inf")
        for _ in range(5):
            started = time.perf_counter()
            block.sum()
            best = min(best, time.perf_counter() - started)
        return {"bytes_per_s": READ_BYTES / best}

    def memory(self) -> Facts:
        """What this process holds now, and its adapters in the compute dtype."""
        return {
            "resident_bytes": psutil.Process().memory_info().rss,
            "adapters": len(self._bank.keys),
            "adapter_bytes": self._bank.bytes,
            "budget_bytes": self._budget,
        }

    def _add(self, key: str | None, prompt: list[int], new_tokens: int) -> str:
        [request] = self._requests([key], [prompt], [new_tokens])
        self._engine.add(request)
        return request.id

    def _requests(
        self, keys: list[str | None], prompts: list[list[int]], new_tokens: list[int]
    ) -> list[Request]:
        made: list[Request] = []
        for key, prompt, wanted in zip(keys, prompts, new_tokens, strict=True):
            self._asked += 1
            made.append(Request(str(self._asked), tuple(prompt), key, Sampling(wanted)))
        return made


class _Pass:
    """One workload on its way through an engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._seconds = 0.0
        self._tokens = 0
        self._steps: list[float] = []

    def begin(self, requests: Sequence[Request]) -> None:
        started = time.perf_counter()
        for request in requests:
            self.engine.add(request)
        self._seconds += time.perf_counter() - started

    def step(self) -> bool:
        """Whether there was anything left to do."""
        if not self.engine.has_work:
            return False
        prefilled, started = self.engine.stats.prefilled_tokens, time.perf_counter()
        self._tokens += sum(len(_tokens(event.completion)) for event in self.engine.step())
        took = time.perf_counter() - started
        self._seconds += took
        if self.engine.stats.prefilled_tokens == prefilled:
            self._steps.append(took)
        return True

    @property
    def facts(self) -> Facts:
        """Its tokens, and the seconds of its own steps."""
        step_s = statistics.median(self._steps)
        return {"seconds": self._seconds, "tokens": self._tokens, "step_s": step_s}


def _tokens(completion: Completion | None) -> tuple[int, ...]:
    if completion is None:
        return ()
    if not completion.finish_reason.is_answer:
        raise RuntimeError(f"generation failed: {completion.error}")
    return completion.token_ids


def _say(facts: Facts) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
