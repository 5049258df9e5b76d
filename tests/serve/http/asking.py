"""Requests to the routes of an endpoint, in memory."""

import json
from typing import Any

import httpx

from raylora.serve.http.openai_api import create_app

HELLO = [{"role": "user", "content": "hello"}]
RENDERED = "<|user|>hello\n<|assistant|>"
"""HELLO in the template of the tests' tokenizer."""


async def request(endpoint, method: str, path: str, **extra) -> httpx.Response:
    transport = httpx.ASGITransport(create_app(endpoint), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://endpoint") as client:
        return await client.request(method, path, **extra)


def chat(call, model: Any = "tiny", **fields: Any) -> httpx.Response:
    return call("/v1/chat/completions", {"model": model, "messages": HELLO, **fields})


def schema_of(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def events_of(answer: httpx.Response) -> list[Any]:
    lines = [line for line in answer.text.split("\n\n") if line]
    payloads = [line.removeprefix("data: ") for line in lines]
    return [text if text == "[DONE]" else json.loads(text) for text in payloads]
