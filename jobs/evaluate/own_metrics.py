"""Metrics of the user's own: functions by import path, out of a file that travels or a package."""

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from raylora.config.metric import OWN
from raylora.errors import InvalidConfig, JobFailed, Problem

OwnMetric: TypeAlias = Callable[[str, str], float | None]
"""(answer, reference) -> score; None where the function has nothing to say of a row."""

_SHIPPED = re.compile(r"[0-9a-f]{16}-")
"""What a bundle puts before the name of a file."""


def load_own(names: Sequence[str], module: str | None, base_dir: Path) -> dict[str, OwnMetric]:
    """Find module:function for each name; `module` is the spec's file.

    A function takes (answer, reference) and gives a number, a bool, or None where it has nothing
    to say of a row. Raises InvalidConfig for what cannot be imported.
    """
    file = None if module is None else base_dir / module
    problems: list[Problem] = []
    found: dict[str, OwnMetric] = {}
    for name in names:
        try:
            found[name] = _checked(name, _find(name, file))
        # Importing runs the user's code, which may fail in any way.
        except Exception as error:
            problems.append(
                Problem(
                    "evaluation.metrics",
                    f"{name} cannot be imported: {type(error).__name__}: {error}",
                    "Write STEM:FUNCTION of the file that module names, or "
                    "PACKAGE.MODULE:FUNCTION of what is installed on the cluster",
                )
            )
    if problems:
        raise InvalidConfig(problems)
    return found


def _find(name: str, file: Path | None) -> Callable[[str, str], Any]:
    module_name, _, function = name.partition(OWN)
    module = (
        _import_file(module_name, file)
        if file is not None and _stem(file) == module_name
        else importlib.import_module(module_name)
    )
    found = getattr(module, function)
    if not callable(found):
        raise TypeError(f"{function} is no function")
    return found


def _stem(file: Path) -> str:
    return _SHIPPED.sub("", file.stem, count=1) if _SHIPPED.match(file.stem) else file.stem


def _import_file(name: str, file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    # As import does it: dataclasses look their module up.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _checked(name: str, function: Callable[[str, str], Any]) -> OwnMetric:
    def score(answer: str, reference: str) -> float | None:
        try:
            value = function(answer, reference)
        except Exception as error:
            raise JobFailed(
                f"{name} failed on the answer {answer[:80]!r}: {type(error).__name__}: {error}",
                hint="mend the function: it takes (answer, reference) and gives a number or None",
            ) from error
        if value is None or isinstance(value, int | float):
            return None if value is None else float(value)
        raise JobFailed(
            f"{name} gave {value!r:.80} for the answer {answer[:80]!r}",
            hint="give a number, true or false, or None where there is nothing to say",
        )

    return score
