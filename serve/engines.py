"""The engines that can answer behind the routes, and the seam that each of them fills."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from raylora.config.serve_spec import EngineKind, ServeSpec
from raylora.engine.request import Event, Request
from raylora.engine.stats import EngineStats
from raylora.lora.sources import LocalModel

if TYPE_CHECKING:
    from raylora.serve.adapters.loading import Slots


class ServingEngine(Protocol):
    """Answers requests of any mix of adapters; the seam between the routes and an engine."""

    open_requests: int
    """Requests that have been taken and have not ended."""

    @property
    def failure(self) -> str | None:
        """Why requests are not worked on any more; None while they are."""
        ...

    def stream(self, requests: Sequence[Request]) -> AsyncGenerator[Event, None]:
        """Events of these requests until all have ended; closing it early cancels the rest."""
        ...

    async def stats(self) -> EngineStats | None:
        """What it did and holds; None where it does not tell."""
        ...

    def stop(self) -> None:
        """End; open requests end as failed."""
        ...


@dataclass(frozen=True)
class Running:
    """An engine that has started."""

    engine: ServingEngine
    slots: "Slots"
    """Where its adapters go."""
    max_length: int
    """The context in tokens, prompt and answer together."""


def start_engine(spec: ServeSpec, local: LocalModel, tokenizer: Any) -> Running:
    """Load the base into the engine that the spec names; no adapter is loaded yet."""
    match spec.engine:
        case EngineKind.RAYLORA:
            from raylora.serve.own_engine import start_own_engine

            return start_own_engine(spec, local, tokenizer)
        case EngineKind.VLLM:
            from raylora.serve.vllm.engine import start_vllm

            return start_vllm(spec, local)
