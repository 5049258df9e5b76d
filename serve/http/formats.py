"""What an answer is to be: any text, JSON, or JSON of a schema."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from raylora.engine.grammar import ANY_OBJECT


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


ResponseFormat = Annotated[TextFormat | JsonFormat | JsonSchemaFormat, Field(discriminator="type")]


def schema_of(
    wanted: "TextFormat | JsonFormat | JsonSchemaFormat | None",
) -> Mapping[str, Any] | None:
    """JSON schema that an answer is to be of; None where any text will do."""
    match wanted:
        case JsonFormat():
            return ANY_OBJECT
        case JsonSchemaFormat(json_schema=schema):
            return schema.content
        case _:
            return None
