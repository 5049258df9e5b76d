"""${section.key} and ${oc.env:NAME} in values, resolved by OmegaConf; failures are Problems."""

from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from raylora.config.dotted import replace, walk
from raylora.errors import Problem

_REMEDY = "Write ${section.key} of a key that has a value, or ${oc.env:NAME,default}."


def malformed(data: dict[str, Any]) -> list[Problem]:
    """A problem, without source, for each value that cannot even be parsed."""
    problems: list[Problem] = []
    for key, value in _templated(data):
        try:
            OmegaConf.create({"value": value})
        except (OmegaConfBaseException, RecursionError) as error:
            problems.append(_problem(key, value, error))
    return problems


def resolve(data: dict[str, Any]) -> list[Problem]:
    """Put the resolved values into data, all of which must be well-formed."""
    problems: list[Problem] = []
    templated = _templated(data)
    config = OmegaConf.create(data) if templated else OmegaConf.create()
    for key, value in templated:
        try:
            resolved = OmegaConf.select(config, key, throw_on_resolution_failure=True)
            if OmegaConf.is_config(resolved):
                resolved = OmegaConf.to_container(resolved, resolve=True)
        except (OmegaConfBaseException, RecursionError, ValueError, TypeError) as error:
            problems.append(_problem(key, value, error))
            continue
        replace(data, key, resolved)
    return problems


def _templated(data: dict[str, Any]) -> list[tuple[str, Any]]:
    return [
        (key, value)
        for key, value in walk(data)
        if not isinstance(value, dict) and "${" in str(value)
    ]


def _problem(key: str, value: Any, error: Exception) -> Problem:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return Problem(key, f"cannot resolve {str(value)[:60]!r}: {reason}", _REMEDY)
