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
    def holds_names(self) -> bool:
        """Whether the key is a mapping from names of the user's own choice."""
        return any(_values(option) for option in self._options)

    def below(self, rest: str) -> "Field | None":
        """What stands at `rest` in a mapping (mlp.up_proj) or in a list of sections (0.weight)."""
        index, _, name = rest.partition(".")
        for option in self._options:
            if rest and (values := _values(option)):
                return Field(f"{self.key}.{rest}", values, is_section=False)
            properties = option.get("items", {}).get("properties")
            if properties and index.isdecimal():
                item = Field(f"{self.key}.{index}", option["items"], is_section=True)
                return item.within(name) if name else item
        return None

    def within(self, rest: str) -> "Field | None":
        """What stands at a dotted key of a section."""
        name, _, deeper = rest.partition(".")
        properties = self.schema.get("properties", {})
        if name not in properties:
            return None
        schema = properties[name]
        found = Field(f"{self.key}.{name}", schema, "properties" in schema)
        return found.below(deeper) if deeper else found

    @property
    def _options(self) -> list[dict[str, Any]]:
        return self.schema.get("anyOf", [self.schema])


class Keys:
    """All keys of a spec, by their dotted names."""

    def __init__(self, spec_type: type[Spec]) -> None:
        schema = spec_type.model_json_schema()
        self.schema = _inline(schema, schema.get("$defs", {}))
        self.fields = {field.key: field for field in _fields(self.schema, "")}

    @property
    def leaves(self) -> list[str]:
        """Dotted names of values, sections left out."""
        return [key for key, field in self.fields.items() if not field.is_section]

    def at(self, key: str) -> Field | None:
        """The field of a dotted key, in mappings and lists of sections too."""
        known = self.field_of(key)
        if known in ("", key):
            return self.fields.get(key)
        return self.fields[known].below(key[len(known) + 1 :])

    def names_of(self, key: str) -> tuple[str, ...]:
        """Names of the sections and of a key; empty for what cannot be addressed by itself."""
        known = self.field_of(key)
        names = tuple(known.split(".")) if known else ()
        if known == key:
            return names
        rest = key[len(known) + 1 :]
        return (*names, rest) if known and rest and self.fields[known].holds_names else ()

    def field_of(self, key: str) -> str:
        """The field that holds a dotted key: its longest beginning in `fields`; may be empty."""
        while key and key not in self.fields:
            key = key.rpartition(".")[0]
        return key

    def known_part(self, key: str) -> str:
        """The longest beginning of a dotted key that the spec has; empty if there is none."""
        while key and self.at(key) is None:
            key = key.rpartition(".")[0]
        return key

    def section(self, name: str) -> list[str]:
        """Last names of the keys directly below a section; the empty name is the top."""
        field = self.at(name)
        properties = self.schema["properties"] if not name else {}
        return list(field.schema.get("properties", {}) if field else properties)

    def nearest(self, key: str) -> list[str]:
        """At most three existing keys that an unknown one was probably meant to be, best first."""
        section, _, name = key.rpartition(".")
        scores: dict[str, float] = {}
        siblings = [f"{section}.{sibling}" for sibling in self.section(section)]
        for known in {**self.fields, **dict.fromkeys(siblings)}:
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


def _fields(schema: dict[str, Any], prefix: str) -> Iterator[Field]:
    for name, value in schema["properties"].items():
        is_section = "properties" in value
        yield Field(f"{prefix}{name}", value, is_section)
        if is_section:
            yield from _fields(value, f"{prefix}{name}.")


def _inline(schema: Any, definitions: dict[str, Any]) -> Any:
    """The schema with what it refers to put in its place."""
    if isinstance(schema, list):
        return [_inline(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inline(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {name: _inline(part, definitions) for name, part in schema.items() if name != "$defs"}


def _values(schema: dict[str, Any]) -> dict[str, Any] | None:
    """Schema of a mapping's values; None for anything else."""
    by_pattern = schema.get("patternProperties", {})
    values = next(iter(by_pattern.values()), schema.get("additionalProperties"))
    return values if isinstance(values, dict) else None


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
        case "array" if "prefixItems" in schema:
            return f"a list of {' and '.join(map(_describe, schema['prefixItems']))}"
        case "array":
            return f"a list, each item {_describe(schema['items'])}"
        case "object" if values := _values(schema):
            return f"a section of names, each with {_describe(values)}"
        case "object":
            return f"a section of {', '.join(schema['properties'])}"
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
