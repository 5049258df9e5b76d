"""From CONFIG and KEY=VALUE to a spec that says where each of its values came from.

Precedence, lowest first: defaults of the schema, group files, the configuration file, overrides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml

from raylora.config import sweep_rules
from raylora.config.document import read_document
from raylora.config.evaluate_spec import EvaluateSpec
from raylora.config.judge import judge
from raylora.config.layers import stack
from raylora.config.origin import Origin
from raylora.config.overrides import Assignment, Choice, parse_override
from raylora.config.presets import Kind, kind_of, locate
from raylora.config.schema import keys_of
from raylora.config.serve_spec import ServeSpec
from raylora.config.spec import Spec
from raylora.config.sweep_spec import SweepSpec
from raylora.config.train_spec import TrainSpec
from raylora.errors import InvalidConfig, Problem

SpecT = TypeVar("SpecT", bound=Spec)


@dataclass(frozen=True)
class Resolved(Generic[SpecT]):
    """A spec and the origin of each of its values."""

    spec: SpecT
    provenance: Mapping[str, Origin]
    """Origin of every dotted key that holds a value, in the spec's order."""
    path: Path
    """The configuration file."""

    def to_yaml(self) -> str:
        """Plain YAML of every value: no groups, no interpolation; read_resolved reads it."""
        return resolved_yaml(self.spec)


def load_train(config: str, overrides: Sequence[str] = ()) -> Resolved[TrainSpec]:
    """Compose a TrainSpec; InvalidConfig holds every problem at once.

    config: name of a preset in configs/train, or path of a YAML file. Of a sweep it is what its
    trials begin with.
    """
    if kind_of(config) is not Kind.SWEEP:
        return _load(config, overrides, Kind.TRAIN, TrainSpec)
    sweep = _load(config, overrides, Kind.SWEEP, SweepSpec)
    origins = {key: sweep.provenance[key] for key in keys_of(TrainSpec).leaves}
    return Resolved(sweep.spec.base, origins, sweep.path)


def load_serve(config: str, overrides: Sequence[str] = ()) -> Resolved[ServeSpec]:
    """Compose a ServeSpec, as load_train does; presets are in configs/serve."""
    return _load(config, overrides, Kind.SERVE, ServeSpec)


def load_sweep(config: str, overrides: Sequence[str] = ()) -> Resolved[SweepSpec]:
    """Compose a SweepSpec, as load_train does; presets are in configs/sweep."""
    resolved = _load(config, overrides, Kind.SWEEP, SweepSpec)
    spec = resolved.spec
    if found := sweep_rules.problems(spec.base, spec.sweep, str(resolved.path)):
        raise InvalidConfig(found)
    return resolved


def load_evaluate(config: str, overrides: Sequence[str] = ()) -> Resolved[EvaluateSpec]:
    """Compose an EvaluateSpec, as load_train does; presets are in configs/evaluate."""
    return _load(config, overrides, Kind.EVALUATE, EvaluateSpec)


def load(kind: Kind, config: str, overrides: Sequence[str] = ()) -> Resolved[Any]:
    """Compose whichever spec the kind stands for."""
    loaders = {
        Kind.TRAIN: load_train,
        Kind.SWEEP: load_sweep,
        Kind.SERVE: load_serve,
        Kind.EVALUATE: load_evaluate,
    }
    return loaders[kind](config, overrides)


def read_resolved(path: str | Path, spec_type: type[SpecT]) -> SpecT:
    """Read what to_yaml wrote; strict, for programs on the cluster."""
    document = read_document(Path(path))
    return judge(spec_type, document.data, document.source, document.problems)


def resolved_yaml(spec: Spec) -> str:
    """A spec as plain YAML, in the spec's order."""
    data = spec.model_dump(mode="json")
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=95)


def _load(
    config: str, overrides: Sequence[str], kind: Kind, spec_type: type[SpecT]
) -> Resolved[SpecT]:
    located = locate(config, kind)
    document = read_document(located.path, located.name)
    choices, assignments, problems = _parse_all(overrides, spec_type)
    layers = stack(document, choices, assignments)
    spec = judge(
        spec_type, layers.data, layers.source, [*document.problems, *layers.problems, *problems]
    )
    provenance = {key: layers.origin(key) for key in keys_of(spec_type).leaves}
    return Resolved(spec, provenance, located.path)


def _parse_all(
    overrides: Sequence[str], spec_type: type[Spec]
) -> tuple[list[Choice], list[Assignment], list[Problem]]:
    choices: list[Choice] = []
    assignments: list[Assignment] = []
    problems: list[Problem] = []
    for text in overrides:
        try:
            parsed = parse_override(text, keys_of(spec_type))
        except InvalidConfig as error:
            problems += error.problems
            continue
        if isinstance(parsed, Choice):
            choices.append(parsed)
        else:
            assignments.append(parsed)
    return choices, assignments, problems


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as a block."""


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text_node)
