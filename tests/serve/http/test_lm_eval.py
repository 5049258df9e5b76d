"""What lm-evaluation-harness sends (its models/openai_completions.py), without the package.

The page on evaluation says that its tasks that generate work, and that those that ask for the
likelihood of a prompt do not.
"""

from asyncio import run
from typing import Any

import httpx
import pytest

from raylora.serve.http.openai_api import create_app

CHAT: dict[str, Any] = {
    "messages": [{"role": "user", "content": "hello"}],
    "model": "home",
    "max_tokens": 256,
    "temperature": 0,
    "seed": 1234,
}
"""Of local-chat-completions; `stop` is the task's."""
LIKELIHOOD: dict[str, Any] = {
    "model": "home",
    "prompt": [[1, 2, 3]],
    "temperature": 0,
    "max_tokens": 1,
    "logprobs": 1,
    "seed": 1234,
    "echo": True,
}
"""Of local-completions."""


def post(endpoint, path: str, body: dict[str, Any]) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(endpoint), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://endpoint") as client:
            return await client.post(path, json=body)

    return run(send())


@pytest.mark.parametrize("stop", [[], ["Question:", "</s>", "<|im_end|>"]])
def test_a_task_that_generates_is_answered(endpoint, stop: list[str]) -> None:
    answer = post(endpoint, "/v1/chat/completions", CHAT | {"stop": stop})
    assert answer.status_code == 200, answer.text
    (choice,) = answer.json()["choices"]
    assert choice["index"] == 0
    assert "hello" in choice["message"]["content"]


def test_a_task_that_asks_for_likelihoods_of_a_prompt_is_refused(endpoint) -> None:
    answer = post(endpoint, "/v1/completions", LIKELIHOOD)
    assert answer.status_code == 400
    assert "echo" in answer.json()["error"]["message"]
