"""What a user of the openai Python client does, against a running endpoint."""

from collections.abc import Callable
from typing import Any

import openai

Check = Callable[[], tuple[str, bool]]


def conversations(endpoint: str, report: dict[str, Any]) -> list[Check]:
    """Checks to call one by one; each gives its name and whether it passed.

    report: what quickstart printed (adapter, messages, answers).
    """
    client = openai.OpenAI(base_url=f"{endpoint}/v1", api_key="unused", max_retries=0)
    adapter: str = report["adapter"]
    name = adapter.partition("@")[0]
    messages = report["messages"]
    expected = report["answers"][adapter]["text"]

    def lists_models() -> tuple[str, bool]:
        listed = {model.id for model in client.models.list()}
        return "models.list", {name, report["base"]} <= listed

    def chats() -> tuple[str, bool]:
        reply = client.chat.completions.create(model=adapter, messages=messages, temperature=0)
        usage = reply.usage
        same = reply.choices[0].message.content == expected and reply.model == adapter
        return "chat.completions", same and usage is not None and usage.completion_tokens > 0

    def streams() -> tuple[str, bool]:
        pieces = [
            chunk.choices[0].delta.content or ""
            for chunk in client.chat.completions.create(
                model=adapter, messages=messages, temperature=0, stream=True
            )
            if chunk.choices
        ]
        return "chat.completions stream", len(pieces) > 2 and "".join(pieces) == expected

    def follows_the_alias() -> tuple[str, bool]:
        reply = client.chat.completions.create(
            model=f"{name}@champion", messages=messages, temperature=0
        )
        return "alias names its version", reply.model == report["champion"]

    def completes() -> tuple[str, bool]:
        reply = client.completions.create(
            model=report["base"], prompt="The capital of France is", max_tokens=5, temperature=0
        )
        return "completions on the base", bool(reply.choices[0].text)

    def refuses_unknown_models() -> tuple[str, bool]:
        try:
            client.chat.completions.create(model="nobody", messages=messages)
        except openai.NotFoundError as error:
            return "unknown model is 404", error.code == "model_not_found"
        return "unknown model is 404", False

    def refuses_bad_bodies() -> tuple[str, bool]:
        try:
            client.chat.completions.create(model=adapter, messages=[], temperature=0)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            return "bad body is 400 or 422", isinstance(error.body, dict)
        return "bad body is 400 or 422", False

    return [
        lists_models,
        chats,
        streams,
        follows_the_alias,
        completes,
        refuses_unknown_models,
        refuses_bad_bodies,
    ]
