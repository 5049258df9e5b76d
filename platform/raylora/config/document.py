"""Read one YAML file from an untrusted hand: plain data, the line of every key, bounded work.

The dialect is YAML with JSON's types: no tags, no merge keys, no dates, no yes/no booleans, no
sexagesimal numbers, so that what is read is what was written.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from raylora.config.origin import Origin, OriginKind
from raylora.errors import InvalidConfig, Problem

MAX_BYTES = 256 * 1024
"""A spec is a few kilobytes; pure-Python YAML needs about a second for this much."""
MAX_NODES = 20_000
"""Values after aliases are expanded: stops a small file that expands to billions."""
MAX_DEPTH = 50

_FLOAT = re.compile(
    r"^[-+]?(?:[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?"
    r"|[0-9]+[eE][-+]?[0-9]+)$"
)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core types: 1e-3 is a number; yes, 010, 1:30 and 2001-01-01 are text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:null", re.compile(r"^(?:~|null|)$"), ["~", "n", ""]
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), ["t", "f"]
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


@dataclass(frozen=True)
class Document:
    """A YAML mapping as plain dicts, lists, text, numbers, booleans and None."""

    name: str
    """How messages call the file."""
    data: dict[str, Any]
    lines: dict[str, int] = field(repr=False)
    """Line, from 1, of each dotted key; of list items too (adapters.0)."""
    problems: list[Problem] = field(default_factory=list[Problem], repr=False)
    """What was refused and is not in data: tags, keys written twice, merge keys."""

    def origin(self, key: str) -> Origin:
        """Where a dotted key of this file stands."""
        return Origin(OriginKind.FILE, self.name, self.lines.get(key))

    def source(self, key: str) -> str:
        """The same as text, for a Problem."""
        return str(self.origin(key))


def read_document(path: Path, name: str | None = None) -> Document:
    """Read a file; InvalidConfig if it is no YAML mapping, or too large."""
    name = name or str(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise _refusal(
                name, f"the file is larger than {MAX_BYTES // 1024} KB", "Write a smaller file."
            )
        text = raw.decode("utf-8")
    except OSError as error:
        remedy = "Write the path of a readable YAML file."
        raise _refusal(name, f"cannot be read: {error.strerror}", remedy) from error
    except UnicodeDecodeError as error:
        message = f"byte {error.start} is not UTF-8 text"
        raise _refusal(name, message, "Save the file as UTF-8.") from error
    return parse_document(text, name)


def parse_document(text: str, name: str) -> Document:
    """The document of a YAML text."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise InvalidConfig([_syntax_problem(error, name)]) from error
    except yaml.YAMLError as error:
        message = f"is not YAML text: {str(error).splitlines()[0]}"
        raise _refusal(name, message, "Remove the control characters.") from error
    except RecursionError as error:
        raise _refusal(name, "is nested too deeply", "Write plain sections.") from error
    if node is None:
        return Document(name, {}, lines={})
    if not isinstance(node, yaml.MappingNode):
        raise _refusal(name, "is not a mapping of keys to values", "Write lines such as name: x.")
    builder = _Builder(name)
    data = builder.build(node, "", 0)
    return Document(name, data, builder.lines, builder.problems)


class _Builder:
    """Turns nodes into data, notes the lines, and collects what is refused."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[str, int] = {}
        self.problems: list[Problem] = []
        self.nodes = 0

    def build(self, node: yaml.Node, key: str, depth: int) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES or depth > MAX_DEPTH:
            message = (
                f"aliases and nesting expand to more than {MAX_NODES} values or {MAX_DEPTH} levels"
            )
            raise InvalidConfig([self._problem(node, key, message, "Write the values out.")])
        match node:
            case yaml.MappingNode() if node.tag == "tag:yaml.org,2002:map":
                return self._mapping(node, key, depth)
            case yaml.SequenceNode() if node.tag == "tag:yaml.org,2002:seq":
                return [
                    self._item(item, f"{key}.{index}", depth)
                    for index, item in enumerate(node.value)
                ]
            case yaml.ScalarNode() if node.tag in _SCALARS:
                return self._scalar(node, key)
            case _:
                tag = node.tag.replace("tag:yaml.org,2002:", "!!")
                self._refuse(node, key, f"found the tag {tag}", "Remove the tag.")
                return None

    def _mapping(self, node: yaml.MappingNode, key: str, depth: int) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for name_node, value_node in node.value:
            name = name_node.value
            if not isinstance(name_node, yaml.ScalarNode) or name_node.tag != _TEXT or not name:
                remedy = "Write a name, quoted if it looks like a number."
                self._refuse(name_node, key, "found a key that is not text", remedy)
                continue
            path = f"{key}.{name}" if key else name
            if "." in name and "." not in key:  # deeper down, as in lora.rank_pattern, it may
                section, _, rest = name.partition(".")
                self._refuse(name_node, path, "dots do not nest", f"Write {rest} below {section}:")
                continue
            if name == "<<":
                self._refuse(name_node, path, "merge keys are not read", "Write the values out.")
                continue
            if name in data:
                message = f"is written twice, first in line {self.lines[path]}"
                self._refuse(name_node, path, message, "Remove one of the two.")
                continue
            self.lines[path] = name_node.start_mark.line + 1
            data[name] = self.build(value_node, path, depth + 1)
        return data

    def _item(self, node: yaml.Node, key: str, depth: int) -> Any:
        self.lines[key] = node.start_mark.line + 1
        return self.build(node, key, depth + 1)

    def _scalar(self, node: yaml.ScalarNode, key: str) -> Any:
        try:
            return _SCALARS[node.tag](node.value)
        except ValueError:
            self._refuse(node, key, f"cannot read {node.value[:40]!r}", "Write it in quotes.")
            return None

    def _refuse(self, node: yaml.Node, key: str, message: str, remedy: str) -> None:
        self.problems.append(self._problem(node, key, message, remedy))

    def _problem(self, node: yaml.Node, key: str, message: str, remedy: str) -> Problem:
        return Problem(key, message, remedy, f"{self.name}:{node.start_mark.line + 1}")


_TEXT = "tag:yaml.org,2002:str"
_SCALARS: dict[str, Callable[[str], Any]] = {
    _TEXT: str,
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": float,
    "tag:yaml.org,2002:bool": lambda text: text == "true",
    "tag:yaml.org,2002:null": lambda _text: None,
}


def _syntax_problem(error: yaml.MarkedYAMLError, name: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    where = f"{name}:{mark.line + 1}" if mark else name
    message = ", ".join(part for part in (error.context, error.problem) if part)
    remedy = "Indent with spaces." if "\\t" in message else "Write key: value lines."
    return Problem("", f"is not YAML: {message}", remedy, where)


def _refusal(name: str, message: str, remedy: str) -> InvalidConfig:
    return InvalidConfig([Problem("", message, remedy, name)])
