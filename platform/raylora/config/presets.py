"""What ships in configs/: presets to start from (train/, serve/), and groups to choose from."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import raylora.configs
from raylora.config.evaluate_spec import EvaluateSpec
from raylora.config.serve_spec import ServeSpec
from raylora.config.spec import Spec
from raylora.config.sweep_spec import SweepSpec
from raylora.config.train_spec import TrainSpec
from raylora.errors import NotFound

GROUPS = ("model", "data", "lora", "training", "profile", "experiment")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\Z")


class Kind(StrEnum):
    """Which spec a configuration describes; also the folder of its shipped presets."""

    TRAIN = "train"
    SWEEP = "sweep"
    SERVE = "serve"
    EVALUATE = "evaluate"

    @property
    def spec_type(self) -> type[Spec]:
        """The spec."""
        return _SPECS[self]


_SPECS: Mapping[Kind, type[Spec]] = {
    Kind.TRAIN: TrainSpec,
    Kind.SWEEP: SweepSpec,
    Kind.SERVE: ServeSpec,
    Kind.EVALUATE: EvaluateSpec,
}
_TELLING = {
    Kind.SWEEP: re.compile(r"^sweep\s*:", re.MULTILINE),
    Kind.EVALUATE: re.compile(r"^subjects\s*:", re.MULTILINE),
}
"""Sections that a file of no other kind has."""


@dataclass(frozen=True)
class Located:
    """A configuration file."""

    path: Path
    name: str
    """How messages call it: shipped files from configs/ on, others as they were given."""


def shipped_root() -> Path:
    """The folder of the shipped YAML files, from a checkout and from an installed wheel."""
    return Path(next(iter(raylora.configs.__path__)))


def presets(kind: Kind) -> list[str]:
    """Names of the shipped presets."""
    return _names(kind.value)


def options(group: str) -> list[str]:
    """Names to choose from in a group."""
    return _names(group)


def shipped(relative: str) -> Located:
    """A shipped file by its path without suffix, as in lora/all_linear."""
    return Located(shipped_root() / f"{relative}.yaml", f"configs/{relative}.yaml")


def headline(relative: str) -> str:
    """First line of a shipped file's comment: what it is for."""
    lines = shipped(relative).path.read_text(encoding="utf-8").splitlines()
    comments = (line.lstrip("# ").strip() for line in lines if line.startswith("#"))
    return next((line for line in comments if line and not line.startswith("@")), "")


def locate(config: str, kind: Kind) -> Located:
    """CONFIG of the command line: the name of a shipped preset, or else a path."""
    name = config.removeprefix(f"{kind}/")
    if _NAME.match(name) and name in presets(kind):
        return shipped(f"{kind}/{name}")
    if Path(config).is_file():
        return Located(Path(config), config)
    near = difflib.get_close_matches(name, presets(kind), n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise NotFound(
        f"there is no {kind} preset and no file called {config!r}",
        hint=f"{meant}shipped presets: {', '.join(presets(kind))}; a file is named by its path",
    )


def kind_of(config: str) -> Kind:
    """The kind that the folder in front of a name or path tells, or a section that only it has.

    Train without either.
    """
    path = Path(config)
    if path.parent.name in tuple(Kind):
        return Kind(path.parent.name)
    text = path.read_text("utf-8", errors="replace") if path.is_file() else ""
    return next((kind for kind, section in _TELLING.items() if section.search(text)), Kind.TRAIN)


def _names(folder: str) -> list[str]:
    return sorted(path.stem for path in (shipped_root() / folder).glob("*.yaml"))
