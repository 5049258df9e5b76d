"""What goes into the engine and what comes out."""

from dataclasses import dataclass
from enum import StrEnum

from raylora.engine.logprobs import TokenLogprob
from raylora.engine.sampling import Sampling
from raylora.errors import InvalidRequest


class FinishReason(StrEnum):
    """Why a row left the batch."""

    STOP = "stop"
    """An end token or a stop string."""
    LENGTH = "length"
    """max_new_tokens or the context length was reached."""
    CANCELLED = "cancelled"
    ERROR = "error"

    @property
    def is_answer(self) -> bool:
        """Whether the row was generated to an end of its own."""
        return self in (FinishReason.STOP, FinishReason.LENGTH)


@dataclass(frozen=True)
class Request:
    """One prompt to continue. adapter is a key of the bank, or None for the base alone."""

    id: str
    prompt_ids: tuple[int, ...]
    adapter: str | None
    sampling: Sampling


@dataclass(frozen=True)
class Completion:
    """A finished row."""

    id: str
    text: str
    token_ids: tuple[int, ...]
    """New tokens, the end token included where there was one."""
    finish_reason: FinishReason
    prompt_tokens: int
    error: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    """Where asked for, of each new token but the end token."""
    begun: float | None = None
    """When its prompt was taken in, by time.monotonic; None where the engine does not say."""


@dataclass(frozen=True)
class Event:
    """What a row has to say after a step: a piece of text, and on the last one how it ended."""

    id: str
    text: str
    completion: Completion | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    """Of the tokens since the last event; the text may lag behind them."""


def check_length(prompt_tokens: int, max_length: int) -> None:
    """Raise InvalidRequest for a prompt that is empty or leaves no room for an answer."""
    if prompt_tokens == 0:
        raise InvalidRequest("the prompt is empty; write at least one token")
    if prompt_tokens >= max_length:
        raise InvalidRequest(
            f"the prompt has {prompt_tokens} tokens and the context length is {max_length}, "
            f"prompt and answer together; shorten the prompt to at most {max_length - 1} tokens"
        )
