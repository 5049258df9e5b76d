"""Which fields a request body may have: unknown ones are refused.

A field of OpenAI's that is not supported is accepted where its value changes nothing and refused
where it would change the answer.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from raylora.serve.http.api_errors import ApiError, bad_request

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


_DROPPED = IGNORED | NEUTRAL.keys()


class Body(BaseModel):
    """A request body: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _drop_neutral_fields(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        fields: dict[str, Any] = data
        if _DROPPED.isdisjoint(fields):
            return fields
        for name, accepted in NEUTRAL.items():
            value = fields.get(name)
            if value is not None and not any(_same(value, neutral) for neutral in accepted):
                raise _unsupported(name, value)
        return {k: v for k, v in fields.items() if k not in _DROPPED}


def _unsupported(param: str, value: Any) -> ApiError:
    """For a known field with a value that would change the answer."""
    accepted = " or ".join(repr(value) for value in (*NEUTRAL[param], None))
    message = f"{param}={value!r} is not supported; leave it out or send {accepted}"
    return bad_request(message, param, "unsupported_parameter")


def _same(value: Any, other: Any) -> bool:
    """Equal as JSON: true is not 1."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)
