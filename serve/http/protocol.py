"""Request bodies of OpenAI's API, as far as this endpoint speaks it; its defaults are theirs."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from raylora.serve.http.fields import Body
from raylora.serve.http.formats import ResponseFormat, schema_of
from raylora.serve.http.messages import ChatMessage


class StreamOptions(BaseModel):
    """What a stream carries beside the pieces of text."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False
    include_obfuscation: bool = False
    """Accepted; nothing is padded either way."""


def _as_tuple(value: Any) -> Any:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else value


Penalty = Annotated[float, Field(ge=-2, le=2)]
TOP_LOGPROBS = 20
"""OpenAI's limit."""


Stop = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(_as_tuple),
    Field(max_length=16),
]


class GenerationBody(Body):
    """What chat and plain completions share."""

    model: str
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    """null is 1, as with OpenAI; 0 is greedy."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    """Not OpenAI's; 0 keeps every token."""
    min_p: float | None = Field(default=None, ge=0, le=1)
    """Not OpenAI's, as with vLLM."""
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=10)
    """Not OpenAI's, as with vLLM, which takes all above 0; near it logits overflow."""
    logit_bias: dict[int, Annotated[float, Field(ge=-100, le=100)]] | None = None
    n: int | None = Field(default=None, ge=1, le=128)
    """Answers to each prompt; with a seed, the k-th is that of seed + k."""
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Stop = ()
    user: str | None = None
    """Gets the same side of a route each time."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with a usage chunk."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def wanted_tokens(self) -> int | None:
        """Most tokens of an answer."""
        return self.max_tokens

    @property
    def wanted_logprobs(self) -> int | None:
        """How many other tokens to tell of beside each chosen one; None tells of none."""
        return None

    @property
    def wanted_schema(self) -> Mapping[str, Any] | None:
        """JSON schema that the answer is to be of."""
        return None


class ChatBody(GenerationBody):
    """POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=TOP_LOGPROBS)
    response_format: ResponseFormat | None = None
    tools: list[dict[str, Any]] | None = None
    """Shown by the chat template; the answer is text as the model writes it."""
    tool_choice: Literal["none", "auto"] | None = None

    @model_validator(mode="after")
    def _top_needs_logprobs(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self

    @property
    def wanted_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def wanted_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def wanted_schema(self) -> Mapping[str, Any] | None:
        return schema_of(self.response_format)

    @property
    def shown_tools(self) -> Sequence[Mapping[str, Any]]:
        """What the chat template is given."""
        return () if self.tool_choice == "none" else self.tools or ()


T = TypeVar("T")
Several = Annotated[list[T], Field(min_length=1)]


class CompletionBody(GenerationBody):
    """POST /v1/completions; a prompt is text or token ids, one or several."""

    prompt: str | Several[int] | Several[str] | Several[list[int]]
    logprobs: int | None = Field(default=None, ge=0, le=TOP_LOGPROBS)

    @property
    def wanted_logprobs(self) -> int | None:
        return self.logprobs

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """The prompts as a list, even where there is one."""
        match self.prompt:
            case str():
                return [self.prompt]
            case [int(), *_]:
                return [self.prompt]  # type: ignore[list-item]
            case _:
                return self.prompt  # type: ignore[return-value]
