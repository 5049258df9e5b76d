"""Public clients of OpenAI's API, unchanged, each in the environment that it is installed in."""

import asyncio
import json
from collections.abc import Iterator

from benchmarks.bars import openai_client
from benchmarks.bars.bar import Bar, failed, holds
from benchmarks.bars.fresh import REPOSITORY
from benchmarks.bars.peer import PYTHON
from benchmarks.bars.sandbox import own_environment
from benchmarks.bars.spoken import child
from benchmarks.serve.endpoint import Endpoint, endpoint
from benchmarks.serve.load import caller
from benchmarks.serve.prompts import conversations

NAME = "asked"
CLIENT_S = 120.0
LANGCHAIN = "langchain-openai client"


def measure() -> Iterator[Bar]:
    """Openai from our environment, langchain-openai from the peers'.

    In fp32, where a prompt whose beginning is known gives the same tokens: with adapters of random
    numbers the likeliest token is nearly a draw, which rounding in bf16 decides.
    """
    with endpoint({NAME: 2}, "model.dtype=fp32") as served:
        report = asyncio.run(_report(served))
        checks = [check() for check in openai_client.conversations(served.url, report)]
        yield _bar("openai client", checks)
        if not PYTHON.exists():
            reason = "the peers' environment is missing: run make bars-setup"
            yield failed(LANGCHAIN, "all conversations", reason)
            return
        yield _bar(LANGCHAIN, _langchain(served, report))


def _bar(name: str, checks: list[tuple[str, bool]]) -> Bar:
    wrong = ", ".join(check for check, passed in checks if not passed)
    return holds(name, sum(passed for _, passed in checks), len(checks), "conversations", wrong)


async def _report(served: Endpoint) -> dict[str, object]:
    """What the conversations of a client are held against, asked of the endpoint without one."""
    messages = conversations(1)[0]
    adapter = f"{NAME}@2"
    async with caller(served.url, 1) as call:
        body = {"model": adapter, "messages": messages, "temperature": 0}
        reply = await call.post("/v1/chat/completions", body)
    return {
        "adapter": adapter,
        "base": served.base.local.name,
        "champion": f"{NAME}@1",
        "messages": messages,
        "answers": {adapter: {"text": reply.body["choices"][0]["message"]["content"]}},
    }


def _langchain(served: Endpoint, report: dict[str, object]) -> list[tuple[str, bool]]:
    settings = json.dumps({"url": f"{served.url}/v1", "report": report})
    command = (str(PYTHON), "-m", "benchmarks.peers.langchain_client", settings)
    with child(command, REPOSITORY, own_environment(), CLIENT_S) as running:
        checks = [(line["check"], line["passed"]) for _, line in running.heard()]
        if running.process.wait() != 0:
            raise running.fault("langchain_client crashed")
    return checks
