"""raylora's endpoint with an engine that does nothing, deployed on the cluster it runs on.

    python -m benchmarks.serve.noop spec.yaml

Everything but the engine is as `raylora serve up` deploys it: routes, keys, catalogue, residency,
tokenizer. Prints {"ready": true} and ends; the application stays.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

from raylora.config.compose import read_resolved
from raylora.config.serve_spec import ServeSpec
from raylora.engine.request import Completion, Event, FinishReason, Request
from raylora.lora.integrity import AdapterFacts, verify
from raylora.lora.sources import LocalModel
from raylora.serve import engines, replica, up
from raylora.serve.adapters.loading import MakeRoom


class NoEngine:
    """Answers every request with one token at once."""

    open_requests = 0
    failure = None

    async def stream(self, requests: Sequence[Request]) -> AsyncGenerator[Event, None]:
        """One event for each."""
        for request in requests:
            done = Completion(
                request.id, "ok", (0,), FinishReason.STOP, prompt_tokens=len(request.prompt_ids)
            )
            yield Event(request.id, "ok", done)

    async def stats(self) -> None:
        """Nothing is done."""

    def stop(self) -> None:
        """Nothing runs."""


class NoSlots:
    """Adapters are checked and not loaded."""

    capacity = 64

    async def add(
        self,
        key: str,
        directory: Path,
        make_room: MakeRoom,
        *,
        manifest_required: bool = True,
    ) -> AdapterFacts:
        """Check."""
        return await asyncio.to_thread(verify, directory, manifest_required=manifest_required)

    async def remove(self, key: str) -> None:
        """Nothing is held."""

    def tier(self, key: str) -> str:
        """As the bank says."""
        return "device"


def no_engine(spec: ServeSpec, local: LocalModel, tokenizer: Any) -> engines.Running:
    """In the place of engines.start_engine."""
    return engines.Running(NoEngine(), NoSlots(), spec.model.max_length)


class NoReplica(replica.Replica):
    """A replica in whose process the engine is that; pickled whole, since this is __main__."""

    async def __init__(self, *given: Any) -> None:
        replica.start_engine = no_engine
        await super().__init__(*given)


def main() -> None:
    """Deploy."""
    spec = read_resolved(Path(sys.argv[1]), ServeSpec)
    replica.Replica = NoReplica
    up.up(spec)
    sys.stdout.write('{"ready": true}\n')
    sys.stdout.flush()


if __name__ == "__main__":
    main()
