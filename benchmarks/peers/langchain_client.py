"""What a user of langchain-openai does, against a running endpoint.

    python -m benchmarks.peers.langchain_client '{"url": ".../v1", "report": {...}}'

Prints a JSON line a conversation.
"""

import asyncio
import json
import sys
from typing import Any

from langchain_openai import ChatOpenAI, OpenAI


def main() -> None:
    """All conversations."""
    settings = json.loads(sys.argv[1])
    report: dict[str, Any] = settings["report"]
    adapter: str = report["adapter"]
    messages = [(message["role"], message["content"]) for message in report["messages"]]
    expected: str = report["answers"][adapter]["text"]
    common: dict[str, Any] = {
        "base_url": settings["url"],
        "api_key": "unused",
        "max_retries": 0,
        "temperature": 0,
    }
    chat = ChatOpenAI(model=adapter, **common)

    answer = chat.invoke(messages)
    usage = answer.usage_metadata
    _say("invoke", answer.content == expected)
    _say("usage", usage is not None and usage["output_tokens"] > 0)
    _say("names its version", answer.response_metadata["model_name"] == adapter)

    pieces = [piece.content for piece in chat.stream(messages)]
    _say("stream", "".join(map(str, pieces)) == expected and len(pieces) > 2)
    _say("batch", [a.content for a in chat.batch([messages] * 3)] == [expected] * 3)
    _say("ainvoke", asyncio.run(chat.ainvoke(messages)).content == expected)

    schema = {
        "title": "Order",
        "type": "object",
        "properties": {"device": {"type": "string", "maxLength": 20}},
        "required": ["device"],
        "additionalProperties": False,
    }
    held = ChatOpenAI(model=report["base"], max_completion_tokens=60, **common)
    order = held.with_structured_output(schema, method="json_schema").invoke(messages)
    _say("structured output", isinstance(order, dict) and set(order) == {"device"})

    plain = OpenAI(model=report["base"], max_tokens=5, **common)
    _say("completions", bool(plain.invoke("The capital of France is")))


def _say(check: str, passed: bool) -> None:
    sys.stdout.write(json.dumps({"check": check, "passed": passed}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
