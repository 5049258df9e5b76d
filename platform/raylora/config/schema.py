"""JSON Schema of the specs, and what it says about one key: type, range, neighbours."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from raylora.config.spec import ADAPTER_NAME, Spec

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(spec_type: type[Spec]) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) that editors check a resolved configuration with."""
    schema = spec_type.model_json_schema()
    # A preset may choose groups as well; the list is read by Hydra and is no part of the spec.
    schema["properties"]["defaults"] = {
        "type": "array",
        "description": "Groups to start from, such as /model: smollm2, and _self_ for this file.",
    }
    return {"$schema": DIALECT} | schema


@dataclass(frozen=True)
class Field:
    """One key of a spec."""

    key: str
    schema: dict[str, Any]
    is_section: bool

    @property
    def takes_text(self) -> bool:
        """Whether the key holds text and nothing else, null aside."""
        kinds = {option.get("type") for option in self._options} - {"null"}
        return kinds == {"string"}

    @property
    def nullable(self) -> bool:
        """Whether null is allowed."""
        return any(option.get("type") == "null" for option in self._options)

    @property
    def allowed(self) -> str:
        """What may be written, as in "an integer from 1 to 256"."""
        if self.is_section:
            return "a section of keys"
        return " or ".join(_describe(option) for option in self._options)

    @property
    def _options(self) -> list[dict[str, Any]]:
        return self.schema.get("anyOf", [self.schema])


class Keys:
    """All keys of a spec, by their dotted names."""

    def __init__(self, spec_type: type[Spec]) -> None:
        schema = spec_type.model_json_schema()
        self.fields = {field.key: field for field in _fields(schema, schema.get("$defs", {}), "")}

    @property
    def leaves(self) -> list[str]:
        """Dotted names of values, sections left out."""
        return [key for key, field in self.fields.items() if not field.is_section]

    def known_part(self, key: str) -> str:
        """The longest beginning of a dotted key that the spec has; empty if there is none."""
        while key and key not in self.fields:
            key = key.rpartition(".")[0]
        return key

    def section(self, name: str) -> list[str]:
        """Last names of the keys directly below a section; the empty name is the top."""
        prefix = f"{name}." if name else ""
        below = [key.removeprefix(prefix) for key in self.fields if key.startswith(prefix)]
        return [key for key in below if "." not in key]

    def nearest(self, key: str) -> list[str]:
        """At most three existing keys that an unknown one was probably meant to be, best first."""
        section, _, name = key.rpartition(".")
        scores: dict[str, float] = {}
        for known in self.fields:
            known_section, _, known_name = known.rpartition(".")
            alike = _likeness(name, known_name)
            begins = known_name.startswith(name) or name.startswith(known_name)
            if alike >= 0.6 or begins:  # lora.rank -> lora.r; a misspelt word is above 0.6
                exact = 0.3 if name == known_name and not section else 0.0
                scores[known] = alike + exact + 0.4 * _likeness(section, known_section)
        best = sorted(scores, key=lambda known: -scores[known])[:3]
        return [known for known in best if scores[known] >= scores[best[0]] - 0.25]


@cache
def keys_of(spec_type: type[Spec]) -> Keys:
    """The keys of a spec; made once."""
    return Keys(spec_type)


def _likeness(written: str, known: str) -> float:
    return difflib.SequenceMatcher(None, written, known).ratio()


def _fields(schema: dict[str, Any], definitions: dict[str, Any], prefix: str) -> Iterator[Field]:
    for name, value in schema["properties"].items():
        inlined = _inline(value, definitions)
        is_section = "properties" in inlined
        yield Field(f"{prefix}{name}", inlined, is_section)
        if is_section:
            yield from _fields(inlined, definitions, f"{prefix}{name}.")


def _inline(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return definitions[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        return schema | {"anyOf": [_inline(option, definitions) for option in schema["anyOf"]]}
    return schema


def _describe(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(str(value) for value in schema["enum"])
    match schema.get("type"):
        case "null":
            return "null"
        case "boolean":
            return "true or false"
        case "integer":
            return "an integer" + _range(schema)
        case "number":
            return "a number" + _range(schema)
        case "array":
            return f"a list, each item {_describe(schema['items'])}"
        case "string" if schema.get("pattern") == ADAPTER_NAME:
            return "a name of 1 to 64 letters, digits, _ and -, a letter or digit first"
        case "string":
            return "text" if not schema.get("minLength") else "text that is not empty"
        case _:
            return "a value"


def _range(schema: dict[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}"
    bounds = [
        f"{word} {bound:g}"
        for word, bound in (
            ("of at least", low),
            ("greater than", above),
            ("of at most", high),
            ("less than", below),
        )
        if bound is not None
    ]
    return (" " + " and ".join(bounds)) if bounds else ""
