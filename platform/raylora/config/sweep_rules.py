"""What a search may not ask for; found before anything starts, all at once."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from raylora.config import population_rules
from raylora.config.dotted import get, put
from raylora.config.fused_rules import unfusable
from raylora.config.judge import unknown_key
from raylora.config.schema import keys_of
from raylora.config.search_space import Domain, Value, keys_in, settled
from raylora.config.sweep_spec import (
    LOSS,
    SCORE,
    VALIDATION_LOSS,
    Execution,
    Searcher,
    SearchSpec,
)
from raylora.config.train_spec import TrainSpec
from raylora.errors import InvalidConfig, Problem

FIXED = ("name", "outputs", "tracking", "evaluation")
"""What all trials share, or they could not be compared: keys and sections."""
SPACE = "sweep.space"


def problems(base: TrainSpec, search: SearchSpec, source: str) -> list[Problem]:
    """Everything wrong with a search over the keys of `base`."""
    found: list[Problem] = []
    if not search.space:
        remedy = "Write lora.r: {choice: [8, 16]}."
        found.append(Problem(SPACE, "there is nothing to search", remedy, source))
    for name, domain in search.space.items():
        found += _entry(base, search, name, domain, source)
    found += _twice(search, source)
    found += _following(search, source)
    found += _metric(base, search, source)
    found += _steps(base, search, source)
    found += _execution(base, search, source)
    found += _searcher(search, source)
    found += population_rules.problems(base, search, source)
    return found


def with_settings(base: TrainSpec, settings: Mapping[str, Any]) -> TrainSpec:
    """A trial: the base with other values. Raises InvalidConfig where they do not go together."""
    data = base.model_dump(mode="json")
    for key, value in settings.items():
        put(data, keys_of(TrainSpec).names_of(key), value)
    try:
        return TrainSpec.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        said = "; ".join(
            dict.fromkeys(e["msg"].removeprefix("Value error, ") for e in error.errors())
        )
        shown = ", ".join(f"{key}={json.dumps(value)}" for key, value in settings.items())
        raise InvalidConfig([Problem(SPACE, f"{shown}: {said}", "Leave it out.", "")]) from error


def changed(base: TrainSpec, trial: TrainSpec) -> dict[str, Any]:
    """The keys in which a trial differs from its base, as overrides of `raylora submit`."""
    ours, theirs = trial.model_dump(mode="json"), base.model_dump(mode="json")
    leaves = keys_of(TrainSpec).leaves
    return {key: get(ours, key) for key in leaves if get(ours, key) != get(theirs, key)}


def _entry(
    base: TrainSpec, search: SearchSpec, name: str, domain: Domain, source: str
) -> Iterator[Problem]:
    keys = keys_of(TrainSpec)
    wrong = False
    for key in (*keys_in(name), *domain.when, *_followed(domain)):
        field = keys.at(key)
        if field is None or not keys.names_of(key):
            wrong = True
            yield unknown_key(key, keys, source)
        elif field.is_section or key.partition(".")[0] in FIXED:
            wrong = True
            yield Problem(
                key,
                "is a section" if field.is_section else "is the same in all trials",
                "Search over single keys of model, data, lora, training or workers.",
                source,
            )
    if not wrong:
        yield from _values(base, name, domain, source)


def _followed(domain: Domain) -> tuple[str, ...]:
    return () if domain.times is None else domain.times[:1]


def _values(base: TrainSpec, name: str, domain: Domain, source: str) -> Iterator[Problem]:
    """Each value by itself must fit its key."""
    keys = keys_in(name)
    for value in domain.samples:
        if len(keys) > 1 and not (isinstance(value, tuple) and len(value) == len(keys)):
            yield Problem(
                f"{SPACE}.{name}",
                f"found {_shown(value)} for {len(keys)} keys that move together",
                f"Write lists of {len(keys)} values.",
                source,
            )
            continue
        try:
            with_settings(base, {**_condition(domain), **settled(name, value)})
        except InvalidConfig as error:
            said = error.problems[0].message
            allowed = " and ".join(_allowed(key) for key in keys)
            yield Problem(f"{SPACE}.{name}", said, f"{allowed}.", source)


def _condition(domain: Domain) -> dict[str, Value]:
    return dict(domain.when)


def _allowed(key: str) -> str:
    field = keys_of(TrainSpec).at(key)
    return f"{key} takes {field.allowed}" if field else key


def _twice(search: SearchSpec, source: str) -> Iterator[Problem]:
    seen: set[str] = set()
    for name in search.space:
        for key in keys_in(name):
            if key in seen:
                yield Problem(f"{SPACE}.{name}", f"{key} is searched twice", "Drop one.", source)
            seen.add(key)


def _following(search: SearchSpec, source: str) -> Iterator[Problem]:
    """A key can follow one that is drawn, and is a number."""
    drawn = {
        key: domain
        for name, domain in search.space.items()
        if domain.times is None
        for key in keys_in(name)
    }
    for name, domain in search.space.items():
        for key in _followed(domain):
            if key not in drawn:
                yield Problem(
                    f"{SPACE}.{name}",
                    f"{key} is not searched, so there is nothing to follow",
                    f"Write choice, or add {key} to sweep.space.",
                    source,
                )
            elif drawn[key].when and drawn[key].when != domain.when:
                yield Problem(
                    f"{SPACE}.{name}",
                    f"{key} is searched under a condition that {name} does not have",
                    "Give both the same `when`.",
                    source,
                )


def _metric(base: TrainSpec, search: SearchSpec, source: str) -> Iterator[Problem]:
    metric, training = search.metric, base.training
    scores = [f"{SCORE}{name}" for name in base.evaluation.metrics]
    if metric not in (LOSS, VALIDATION_LOSS, *scores):
        known = ", ".join((LOSS, VALIDATION_LOSS, *scores))
        yield Problem(
            "sweep.metric", f"no trial reports {metric}", f"Write one of {known}.", source
        )
    elif metric != LOSS and training.validation_steps is None:
        yield Problem(
            "sweep.metric",
            f"{metric} comes from validations, and training.validation_steps is null",
            f"Set training.validation_steps, or write sweep.metric={LOSS}.",
            source,
        )
    elif metric in scores and training.validation_answers == 0:
        yield Problem(
            "sweep.metric",
            f"{metric} comes from answers, and training.validation_answers is 0",
            "Set training.validation_answers, or write sweep.metric=validation_loss.",
            source,
        )


def _steps(base: TrainSpec, search: SearchSpec, source: str) -> Iterator[Problem]:
    training = base.training
    if training.max_steps is None:
        yield Problem(
            "training.max_steps",
            "trials are compared at equal steps, and their number is not given",
            "Write training.max_steps.",
            source,
        )
    if search.metric == LOSS and search.report_steps % training.logging_steps:
        yield Problem(
            "sweep.report_steps",
            f"{search.report_steps} is no multiple of training.logging_steps="
            f"{training.logging_steps}, at which the loss is known",
            "Make it a multiple.",
            source,
        )


def _execution(base: TrainSpec, search: SearchSpec, source: str) -> Iterator[Problem]:
    """What cannot be fused trains isolated, unless the search says that all are fused."""
    if search.execution is Execution.FUSED:
        yield from unfusable(base, search, source)
    if search.execution is Execution.ISOLATED and search.trials_per_slot is not None:
        yield Problem(
            "sweep.trials_per_slot",
            "isolated trials share no base",
            f"Leave it out, or write sweep.execution={Execution.AUTO}.",
            source,
        )


def _searcher(search: SearchSpec, source: str) -> Iterator[Problem]:
    endless = [
        name
        for name, domain in search.space.items()
        if domain.values is None and domain.times is None
    ]
    if search.searcher is Searcher.GRID and endless:
        yield Problem(
            "sweep.searcher",
            f"a grid needs values that can be counted, and {endless[0]} has none",
            f"Write choice for {endless[0]}, or sweep.searcher=random.",
            source,
        )
    if search.trials is None and search.searcher is not Searcher.GRID:
        yield Problem(
            "sweep.trials",
            f"{search.searcher} has no end of its own",
            "Write a number of trials, or sweep.searcher=grid.",
            source,
        )


def _shown(value: Any) -> str:
    return json.dumps(value)
