"""The endpoint as the command line sees it: OpenAI's API over httpx."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from raylora.errors import NotAuthorised, NotFound, RayloraError, Unreachable

CONNECT_S = 3.0
READ_S = 310.0
"""Between two pieces; the endpoint ends a request by itself before that."""
KEY_VARIABLE = "RAYLORA_API_KEY"
"""No option of its own: what stands on a command line, others on the machine can read."""


@dataclass(frozen=True)
class Answer:
    """A finished answer."""

    model: str
    """The version that gave it."""
    text: str
    finish_reason: str
    tokens: int
    seconds: float
    first_s: float
    """Until the first piece of text."""

    @property
    def tokens_per_second(self) -> float:
        """Over the whole request, the prompt included."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def speed(self) -> str:
        """In words."""
        return (
            f"{self.tokens} tokens, first after {self.first_s:.2f} s, "
            f"{self.tokens_per_second:.1f} tokens/s"
        )


class EndpointClient:
    """One endpoint. Methods raise Unreachable, NotAuthorised, NotFound, RayloraError."""

    def __init__(self, url: str) -> None:
        self._url = url
        limits = httpx.Timeout(READ_S, connect=CONNECT_S)
        self._http = httpx.Client(base_url=url, timeout=limits, trust_env=False, headers=bearer())

    def default_model(self) -> str:
        """The first adapter by name, or the base."""
        cards = self._get("/v1/models")["data"]
        if not cards:
            raise NotFound("the key may use no model of this endpoint", hint="--model NAME")
        adapters = [card["id"] for card in cards if card["parent"]]
        return adapters[0] if adapters else cards[0]["id"]

    def system_prompt(self, model: str) -> str | None:
        """What the version that `model` means was trained with; None for the base."""
        card = self._get(f"/v1/models/{model}")
        if card["parent"] is None:
            return None
        return self._get(f"/v1/adapters/{card['root']}")["system_prompt"]

    def chat(
        self,
        model: str,
        messages: Sequence[Mapping[str, str]],
        options: Mapping[str, Any],
        show: Callable[[str], None],
    ) -> Answer:
        """Ask, show each piece of text as it comes, and return the whole."""
        body = {
            "model": model,
            "messages": list(messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            **{key: value for key, value in options.items() if value is not None},
        }
        started = time.monotonic()
        pieces: list[str] = []
        first: float | None = None
        named, reason, tokens = model, "", 0
        with (
            self._answering(),
            self._http.stream("POST", "/v1/chat/completions", json=body) as response,
        ):
            _check(response)
            for line in response.iter_lines():
                chunk = _chunk(line)
                if chunk is None:
                    continue
                named = chunk["model"]
                if chunk.get("usage"):
                    tokens = chunk["usage"]["completion_tokens"]
                for choice in chunk["choices"]:
                    piece = choice["delta"].get("content") or ""
                    reason = choice["finish_reason"] or reason
                    if piece and first is None:
                        first = time.monotonic()
                    pieces.append(piece)
                    show(piece)
        if not reason:
            raise RayloraError(f"{self._url} broke the answer off", hint="raylora serve status")
        ended = time.monotonic()
        return Answer(
            named, "".join(pieces), reason, tokens, ended - started, (first or ended) - started
        )

    def _get(self, path: str) -> Any:
        with self._answering():
            response = self._http.get(path)
            _check(response)
            return response.json()

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            raise Unreachable(
                f"the endpoint at {self._url} does not answer ({error})",
                hint="raylora serve status, or raylora serve up",
            ) from error


def bearer() -> dict[str, str]:
    """Headers that carry the user's key, where there is one."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    return {"Authorization": f"Bearer {key}"} if key else {}


def _check(response: httpx.Response) -> None:
    """Raise what an error status means."""
    if response.is_success:
        return
    response.read()
    try:
        message = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = f"{response.status_code} from {response.url}: {response.text[:200]}"
    match response.status_code:
        case 401 | 403:
            raise NotAuthorised(message, hint=f"set {KEY_VARIABLE} to a key of the endpoint")
        case 404:
            raise NotFound(message)
        case _:
            raise RayloraError(message)


def _chunk(line: str) -> dict[str, Any] | None:
    """The data of one event; None for blank lines and the end mark."""
    data = line.removeprefix("data: ")
    if data == line or data == "[DONE]":
        return None
    chunk = json.loads(data)
    if "error" in chunk:
        raise RayloraError(chunk["error"]["message"])
    return chunk
