"""Stack group files, the user's file and overrides; note where each value came from.

Hydra decides which files take part and in which order (the defaults list). Values given as
overrides are laid on top here, because Hydra refuses a key that no file has, and the schema
is the better judge of that.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from raylora.config.defaults_list import check_defaults
from raylora.config.document import Document, read_document
from raylora.config.dotted import put, walk, without
from raylora.config.interpolation import malformed, resolve
from raylora.config.origin import Origin, OriginKind
from raylora.config.overrides import Assignment, Choice
from raylora.config.presets import shipped, shipped_root
from raylora.errors import Problem

_PRIMARY = "_raylora_primary_"
_HYDRAS_KEYS = ("defaults", "hydra")
_one_at_a_time = threading.Lock()
"""Hydra keeps its state in process-wide singletons."""


@dataclass
class Stack:
    """Composed data as plain values, with the origin of every dotted key, and what went wrong."""

    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def origin(self, key: str) -> Origin:
        """Where a value was written; of a mapping, where its newest entry was."""
        entries = [
            origin
            for known, origin in self.origins.items()
            if known.startswith(f"{key}.") and origin.kind is OriginKind.OVERRIDE
        ]
        return entries[-1] if entries else self.origins.get(key, Origin())

    def source(self, key: str) -> str:
        """Where a key was written; of a key with no origin, where the nearest section was."""
        while key and key not in self.origins:
            key = key.rpartition(".")[0]
        return str(self.origins[key]) if key else ""

    def report(self, problems: Iterable[Problem], source: Callable[[str], str]) -> None:
        """Take problems in, each with the place its key was written at."""
        self.problems += [replace(problem, source=source(problem.key)) for problem in problems]


def stack(
    document: Document, choices: Sequence[Choice], assignments: Sequence[Assignment]
) -> Stack:
    """Lay the layers on each other, lowest precedence first."""
    defaults, problems = check_defaults(document)
    result = Stack(problems=problems)
    broken = malformed(document.data)
    own = without(document.data, [*_HYDRAS_KEYS, *(problem.key for problem in broken)])
    result.report(broken, document.source)
    try:
        _compose(result, document, own | {"defaults": defaults}, choices)
    except (HydraException, OmegaConfBaseException) as error:
        result.problems.append(_composition_problem(error, document))
        result.data = own
        _note(result, document, "", own)
    if "hydra" in document.data:
        put(result.data, ["hydra"], document.data["hydra"])
        result.origins["hydra"] = document.origin("hydra")
    for assignment in assignments:
        _assign(result, assignment, assignment.names, assignment.value)
    broken = malformed(result.data)
    result.data = without(result.data, (problem.key for problem in broken))
    result.report([*broken, *resolve(result.data)], result.source)
    return result


def _compose(
    result: Stack, document: Document, node: dict[str, Any], choices: Sequence[Choice]
) -> None:
    with _hydra():
        ConfigStore.instance().store(name=_PRIMARY, node=node, package="_global_")
        in_use = {path.rpartition("/")[0] for path, _ in _order([])} if choices else set[str]()
        overrides = [text for choice in choices for text in _for_hydra(choice, in_use)]
        config = compose(_PRIMARY, overrides)
        order = _order(overrides)
    data = OmegaConf.to_container(config, resolve=False)
    assert isinstance(data, dict)
    result.data = {str(key): value for key, value in data.items()}
    for path, package in order:
        if path == _PRIMARY:
            _note(result, document, "", document.data)
        else:
            located = shipped(path)
            layer = read_document(located.path, located.name)
            _note(result, layer, package, layer.data)


def _order(overrides: list[str]) -> list[tuple[str, str]]:
    """The files that take part with the section each fills, in rising order of precedence."""
    loader = GlobalHydra.instance().config_loader()
    entries = loader.compute_defaults_list(_PRIMARY, overrides, RunMode.RUN).defaults
    paths = [(str(entry.config_path), entry.package or "") for entry in entries]
    return [(path, package) for path, package in paths if not path.startswith("hydra/")]


def _for_hydra(choice: Choice, in_use: set[str]) -> Iterator[str]:
    """A plain choice replaces the option in use, and adds the group where none is in use."""
    if not choice.options:
        if choice.group in in_use:
            yield f"~{choice.group}"
        return
    sign = "" if choice.group in in_use else "+"
    if len(choice.options) == 1:
        yield f"{sign}{choice.group}={choice.options[0]}"
    else:
        yield f"{sign}{choice.group}=[{','.join(choice.options)}]"


@contextmanager
def _hydra() -> Iterator[None]:
    """Hydra over the shipped files, with the caller's own Hydra state put back afterwards."""
    with _one_at_a_time:
        before = GlobalHydra.instance().hydra
        GlobalHydra.instance().clear()
        try:
            with initialize_config_dir(str(shipped_root().absolute()), version_base="1.3"):
                yield
        finally:
            ConfigStore.instance().repo.pop(f"{_PRIMARY}.yaml", None)
            GlobalHydra.instance().hydra = before


def _note(result: Stack, document: Document, package: str, data: dict[str, Any]) -> None:
    prefix = f"{package}." if package else ""
    for key, value in walk(data):
        if key.partition(".")[0] == "defaults":
            continue
        if not isinstance(value, dict):
            _forget_below(result, prefix + key)
        result.origins[prefix + key] = document.origin(key)
        if isinstance(value, list):
            for item in filter(lambda below: below.startswith(f"{key}."), document.lines):
                result.origins[prefix + item] = document.origin(item)


def _assign(result: Stack, assignment: Assignment, names: tuple[str, ...], value: Any) -> None:
    key = ".".join(names)
    if isinstance(value, dict):
        # As in Hydra a mapping is merged into its section; it does not replace it.
        for name, inner in value.items():
            _assign(result, assignment, (*names, str(name)), inner)
        return
    _forget_below(result, key)
    result.origins.pop(key, None)
    if assignment.delete:
        result.data = without(result.data, [key])
        return
    put(result.data, names, value)
    result.origins[key] = Origin(OriginKind.OVERRIDE, assignment.text)


def _forget_below(result: Stack, key: str) -> None:
    for known in [known for known in result.origins if known.startswith(f"{key}.")]:
        del result.origins[known]


def _composition_problem(error: Exception, document: Document) -> Problem:
    lines = str(error).replace(_PRIMARY, document.name).splitlines()
    remedy = "Choose each group once; change another file's choice by override /GROUP: OPTION."
    message = (lines or [type(error).__name__])[0].rstrip(".")
    return Problem("defaults", message, remedy, document.source("defaults"))
