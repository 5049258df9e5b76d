"""One process that answers: base, bank and engine. Rows of all adapters share its batches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raylora.config.batch_spec import BatchSpec
from raylora.config.places import cache
from raylora.errors import InvalidRequest, RayloraError
from raylora.jobs.batch.questions import Question


@dataclass(frozen=True)
class Asked:
    """A question, and the version that is to answer it; the base's name for none."""

    question: Question
    version: str


@dataclass(frozen=True)
class Replies:
    """Lines for the file, and what the engine failed at, which is to be asked again."""

    lines: list[dict[str, Any]]
    tokens: int
    failures: list[str]


class Answerer:
    """Made once in a process, and asked many times."""

    def __init__(self, spec: BatchSpec, versions: Sequence[str]) -> None:
        """`versions`: name@version of each adapter. The base is loaded with the first question."""
        self._spec = spec
        self._versions = versions
        self._ready: _Loaded | None = None

    def answer(self, asked: Sequence[Asked]) -> Replies | RayloraError:
        """Answer questions, in one go. An error is what no question could be answered for."""
        try:
            if self._ready is None:
                self._ready = _load(self._spec, self._versions)
            return self._ready.answer(asked)
        except RayloraError as error:
            # As a value: Ray would wrap one that is raised.
            return error


@dataclass
class _Loaded:
    spec: BatchSpec
    engine: Any
    tokenizer: Any
    templates: Mapping[str, str | None]
    system_prompts: Mapping[str, str | None]

    def answer(self, asked: Sequence[Asked]) -> Replies:
        from raylora.engine.generator import generate
        from raylora.engine.request import Request, check_length
        from raylora.engine.sampling import Sampling

        lines: list[dict[str, Any]] = []
        requests: dict[str, tuple[Asked, Request]] = {}
        for number, each in enumerate(asked):
            try:
                prompt = self._prompt(each)
                check_length(len(prompt), self.engine.max_length)
            except InvalidRequest as error:
                lines.append(_head(each) | {"error": error.message})
                continue
            sampling = Sampling(
                max_new_tokens=self.spec.max_tokens
                or self.spec.serving.batching.default_max_tokens,
                temperature=self.spec.temperature,
                seed=self.spec.seed + each.question.row,
            )
            key = each.version if each.version in self.templates else None
            requests[str(number)] = (each, Request(str(number), prompt, key, sampling))
        tokens, failures = 0, list[str]()
        for done in generate(self.engine, [request for _, request in requests.values()]):
            each = requests[done.id][0]
            if not done.finish_reason.is_answer:
                failures.append(f"row {each.question.row}, {each.version}: {done.error}")
                continue
            tokens += len(done.token_ids)
            lines.append(
                _head(each)
                | {
                    "answer": done.text,
                    "finish_reason": done.finish_reason.value,
                    "prompt_tokens": done.prompt_tokens,
                    "completion_tokens": len(done.token_ids),
                }
            )
        return Replies(lines, tokens, failures)

    def _prompt(self, asked: Asked) -> tuple[int, ...]:
        from raylora.engine.prompts import chat_prompt

        system = self.spec.system_prompt
        if system is None:
            system = self.system_prompts[asked.version]
        messages = asked.question.prompted(system)
        template = self.templates.get(asked.version)
        try:
            return tuple(chat_prompt(self.tokenizer, messages, asked.question.tools, template))
        except Exception as error:
            # Templates refuse some sequences of roles by raising; their message says which.
            raise InvalidRequest(f"the chat template refuses: {error}") from error


def _load(spec: BatchSpec, versions: Sequence[str]) -> _Loaded:
    import torch

    from raylora.engine.generator import Engine
    from raylora.lora import devices
    from raylora.lora.adapter_config import chat_template
    from raylora.lora.bank.bank import Bank
    from raylora.lora.base import load_for_generation, load_tokenizer
    from raylora.lora.sources import fetch
    from raylora.tracking.adapters.registry import Registry
    from raylora.tracking.location import tracking_uri

    serving = spec.serving
    torch.set_num_threads(max(1, int(serving.cpus_per_replica)))
    local = fetch(serving.model, cache())
    tokenizer = load_tokenizer(local)
    model = load_for_generation(local, serving.model, devices.pick())
    bank = Bank(model, base_revision=local.revision)
    registry = Registry(tracking_uri(serving.tracking, serving.outputs))
    templates: dict[str, str | None] = {}
    prompts: dict[str, str | None] = {}
    for version in versions:
        folder = registry.download(registry.resolve(version), cache() / "adapters")
        facts = bank.add(version, folder)
        templates[version] = chat_template(folder)
        prompts[version] = facts.system_prompt
    # The base gets that of the first adapter beside it, so that both are asked the same.
    prompts[serving.model.name] = next(filter(None, prompts.values()), None)
    engine = Engine(
        model,
        tokenizer,
        bank,
        max_batch_size=serving.batching.max_batch_size,
        max_length=serving.model.max_length,
        cache_bytes=serving.batching.cache_mb << 20,
        prefill_tokens=serving.batching.prefill_tokens,
    )
    return _Loaded(spec, engine, tokenizer, templates, prompts)


def _head(asked: Asked) -> dict[str, Any]:
    named = {} if asked.question.id is None else {"id": asked.question.id}
    return {"row": asked.question.row, **named, "adapter": asked.version}
