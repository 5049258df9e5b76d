"""What a spec names on this machine, as it holds where the job runs."""

import os
from pathlib import Path
from typing import TypeVar

from raylora.config.evaluate_spec import EvaluateSpec
from raylora.config.model_spec import ModelSource
from raylora.config.serve_spec import ServeSpec
from raylora.config.train_spec import TrainSpec
from raylora.errors import InvalidConfig, Problem

SomeSpec = TypeVar("SomeSpec", bound=TrainSpec | EvaluateSpec | ServeSpec)


def settle(spec: SomeSpec, *, is_local: bool, base: Path) -> SomeSpec:
    """Return the spec with every path that means this machine made absolute.

    For another cluster a relative outputs folder is refused: there it would lie in the job's
    scratch folder and be gone with it.
    """
    if not is_local:
        _refuse_scratch_outputs(spec)
        return spec
    updates: dict[str, object] = {"outputs": absolute(spec.outputs, base)}
    if spec.model.source is ModelSource.PATH:
        updates["model"] = spec.model.model_copy(update={"id": _model_folder(spec.model.id, base)})
    if spec.tracking.uri:
        uri = _absolute_store(spec.tracking.uri, base)
        updates["tracking"] = spec.tracking.model_copy(update={"uri": uri})
    if isinstance(spec, EvaluateSpec):
        updates["subjects"] = tuple(
            absolute(name, base) if "/" in name else name for name in spec.subjects
        )
    updates |= {key: absolute(path, base) for key, path in _endpoint_files(spec).items()}
    return spec.model_copy(update=updates)


def absolute(path: str, base: Path) -> str:
    """A path from the folder that relative ones start from; a URI stays."""
    if "://" in path:
        return path
    return os.path.normpath(base / Path(path).expanduser())


def _refuse_scratch_outputs(spec: TrainSpec | EvaluateSpec | ServeSpec) -> None:
    problems: list[Problem] = []
    if "://" not in spec.outputs and not Path(spec.outputs).is_absolute():
        problems.append(
            Problem(
                "outputs",
                f"{spec.outputs!r} is relative, and the job runs on another machine",
                "Write storage that all its nodes share: an absolute path (/shared/outputs) or "
                "a URI (s3://bucket/outputs)",
            )
        )
    problems += [
        Problem(
            key,
            f"{path!r} is relative, and the endpoint runs on other machines",
            "Write an absolute path that every node has",
        )
        for key, path in _endpoint_files(spec).items()
        if not Path(path).is_absolute()
    ]
    if problems:
        raise InvalidConfig(problems)


def _endpoint_files(spec: TrainSpec | EvaluateSpec | ServeSpec) -> dict[str, str]:
    """Files that replicas open where they run; they never travel."""
    if not isinstance(spec, ServeSpec):
        return {}
    named = {"keys": spec.keys, "access_log": spec.access_log}
    return {key: path for key, path in named.items() if path is not None}


def _model_folder(model_id: str, base: Path) -> str:
    folder = absolute(model_id, base)
    if not Path(folder).is_dir():
        raise InvalidConfig(
            [
                Problem(
                    "model.id",
                    f"there is no folder {folder}",
                    "Write the folder that holds config.json and the safetensors files, or "
                    "another model.source",
                )
            ]
        )
    return folder


def _absolute_store(uri: str, base: Path) -> str:
    """A store without a host is a file: in the job's own folder a relative one would be lost."""
    scheme, separator, path = uri.partition(":///")
    if separator and scheme.startswith("sqlite") and not path.startswith("/"):
        return f"{scheme}:///{absolute(path, base)}"
    return uri if ":" in uri else absolute(uri, base)
