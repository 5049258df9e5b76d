"""Request and response bodies of OpenAI's API, as far as this endpoint speaks it.

Defaults are those of OpenAI's reference. A field of OpenAI's that is not supported is accepted
where its value changes nothing and refused where it would change the answer.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from raylora.engine.grammar import ANY_OBJECT

IGNORED = frozenset(
    {
        "metadata", "store", "service_tier", "parallel_tool_calls", "safety_identifier",
        "prompt_cache_key", "prompt_cache_retention",
    }
)  # fmt: skip
"""Fields of OpenAI's that never change an answer here."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
}
"""Fields of OpenAI's that are not supported, with the values (beside null) that change nothing."""


class UnsupportedField(Exception):
    """A known field with a value that would change the answer."""

    def __init__(self, param: str, value: Any) -> None:
        accepted = " or ".join(repr(value) for value in (*NEUTRAL[param], None))
        super().__init__(f"{param}={value!r} is not supported; leave it out or send {accepted}")
        self.param = param


class Body(BaseModel):
    """A request body: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _drop_neutral_fields(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        fields: dict[str, Any] = data
        for name, accepted in NEUTRAL.items():
            value = fields.get(name)
            if value is not None and not any(_same(value, neutral) for neutral in accepted):
                raise UnsupportedField(name, value)
        return {k: v for k, v in fields.items() if k not in IGNORED and k not in NEUTRAL}


def _same(value: Any, other: Any) -> bool:
    """Equal as JSON: true is not 1."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


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


class JsonSchema(BaseModel):
    """A schema that an answer is to be of."""

    model_config = ConfigDict(extra="forbid")

    name: str
    description: str | None = None
    content: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None
    """Accepted; answers are held to the schema either way."""


class TextFormat(BaseModel):
    """Any text."""

    type: Literal["text"]


class JsonFormat(BaseModel):
    """JSON mode: an object."""

    type: Literal["json_object"]


class JsonSchemaFormat(BaseModel):
    """JSON of a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


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
    repetition_penalty: float | None = Field(default=None, gt=0, le=10)
    """Not OpenAI's, as with vLLM."""
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
    def wanted_logprobs(self) -> int | None:
        """How many other tokens to tell of beside each chosen one; None tells of none."""
        return None

    @property
    def wanted_schema(self) -> Mapping[str, Any] | None:
        """JSON schema that the answer is to be of."""
        return None


class TextPart(BaseModel):
    """A part of a message's content; text is the only kind there is."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    refusal: None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    function_call: None = None
    audio: None = None
    annotations: list[Any] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.content is None and not self.tool_calls:
            raise ValueError("content is missing; only a message with tool_calls has none")
        return self

    def rendered(self) -> dict[str, Any]:
        """The message as chat templates know it: parts joined, developer as system."""
        content = self.content or ""
        if not isinstance(content, str):
            content = "".join(part.text for part in content)
        role = "system" if self.role == "developer" else self.role
        calls = self.tool_calls and [_with_arguments(call) for call in self.tool_calls]
        own = {"tool_calls": calls, "tool_call_id": self.tool_call_id}
        given = {key: value for key, value in own.items() if value is not None}
        return {"role": role, "content": content, **given}


def _with_arguments(call: dict[str, Any]) -> dict[str, Any]:
    """A tool call with its arguments as an object: templates write them as JSON themselves."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        return call
    return {**call, "function": {**function, "arguments": arguments}}


class ChatBody(GenerationBody):
    """POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=TOP_LOGPROBS)
    response_format: (
        Annotated[TextFormat | JsonFormat | JsonSchemaFormat, Field(discriminator="type")] | None
    ) = None
    tools: list[dict[str, Any]] | None = None
    """Shown by the chat template; the answer is text as the model writes it."""
    tool_choice: Literal["none", "auto"] | None = None

    @model_validator(mode="after")
    def _top_needs_logprobs(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self

    @property
    def wanted_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def wanted_schema(self) -> Mapping[str, Any] | None:
        match self.response_format:
            case JsonFormat():
                return ANY_OBJECT
            case JsonSchemaFormat(json_schema=wanted):
                return wanted.content
            case _:
                return None

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


class Usage(BaseModel):
    """Tokens counted for one request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, prompt_tokens: int, completion_tokens: int) -> "Usage":
        """Counts with their sum."""
        return cls(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            total_tokens=prompt_tokens + completion_tokens,
        )


class ModelCard(BaseModel):
    """One entry of /v1/models."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "raylora"
    root: str
    """The model it stands for: name@version for an adapter, the base for itself."""
    parent: str | None = None
    """The base below an adapter."""


class ErrorBody(BaseModel):
    """The inside of {"error": ...}."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None
