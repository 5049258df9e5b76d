"""The files that a spec names and that travel with its job."""

from collections.abc import Mapping
from glob import iglob
from pathlib import Path

from raylora.cluster.bundle import is_glob
from raylora.cluster.settled_paths import absolute
from raylora.config.data_spec import BUNDLED, DataSpec
from raylora.config.evaluate_spec import EvaluateSpec
from raylora.config.model_spec import ModelSource
from raylora.config.train_spec import TrainSpec

HUB = "hub:"
"""Before a data set of the model hub."""
NOT_SHIPPED = (BUNDLED, HUB)
"""Beginnings of data sources that are no files. file:// is read where the job runs, too."""


def spec_files(
    spec: TrainSpec | EvaluateSpec, base: Path, *, is_local: bool = True
) -> Mapping[str, Path]:
    """Return the local files, folders and globs the spec names, by dotted key: these travel.

    Bundled data, the hub's and URLs do not; nor does, for another cluster, an absolute path that
    does not exist here, which is then taken for a path over there.
    """
    files: dict[str, Path] = {}
    for key, value in _named(spec).items():
        if value is None or value.startswith(NOT_SHIPPED) or "://" in value:
            continue
        path = Path(absolute(value, base))
        over_there = not is_local and Path(value).is_absolute() and not _is_here(path)
        if not over_there:
            files[key] = path
    return files


def name_datasets(spec: EvaluateSpec) -> EvaluateSpec:
    """Return the spec with a name for each data set: a shipped file is called by its hash."""
    named = tuple(asked.model_copy(update={"name": asked.label}) for asked in spec.datasets)
    return spec.model_copy(update={"datasets": named})


def needs_hub(spec: TrainSpec | EvaluateSpec) -> bool:
    """Whether its job asks the model hub for data or for the base."""
    named = _named(spec).values()
    return spec.model.source is ModelSource.HUB or any(
        source.startswith(HUB) for source in named if source
    )


def _named(spec: TrainSpec | EvaluateSpec) -> dict[str, str | None]:
    """What a spec names that may be a file, by dotted key."""
    if isinstance(spec, TrainSpec):
        return _named_by(spec.data)
    named: dict[str, str | None] = {"module": spec.module}
    for i, asked in enumerate(spec.datasets):
        named[f"datasets.{i}.source"] = asked.source
        named[f"datasets.{i}.chat_template"] = asked.chat_template
    return named


def _named_by(data: DataSpec) -> dict[str, str | None]:
    mixed = {f"data.mixture.{i}.source": part.source for i, part in enumerate(data.mixture)}
    return {
        "data.train": data.train,
        **mixed,
        "data.validation": data.validation,
        "data.chat_template": data.chat_template,
    }


def _is_here(path: Path) -> bool:
    return path.exists() or (is_glob(str(path)) and any(iglob(str(path), recursive=True)))
