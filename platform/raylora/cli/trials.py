"""`raylora trials`: list the trials of a sweep; end or vary one while the sweep runs."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from raylora.cli import sweep_view
from raylora.cli.options import output_option, tracking_option
from raylora.cli.output import emit, next_commands
from raylora.cli.tracked import same_store, store_uri
from raylora.config.overrides import Choice, parse_override
from raylora.config.schema import keys_of
from raylora.config.sweep_rules import FIXED
from raylora.config.train_spec import TrainSpec
from raylora.errors import InvalidConfig, JobFailed, Problem
from raylora.tracking.sweep_requests import CloneTrial, Request, StopTrial, answer_to, ask
from raylora.tracking.sweeps import get_sweep

ANSWER_S = 10.0
"""A driver looks for requests every 2 s, and answers when it has done what was asked."""
LOOK_S = 0.5
"""Between two looks for its answer."""


@click.group(name="trials")
def command() -> None:
    """List, stop and clone the trials of a sweep."""


@command.command(name="list")
@click.argument("sweep", metavar="SWEEP")
@tracking_option
@output_option
def list_command(sweep: str, tracking_uri: str | None, outputs: str, output: str) -> None:
    """Trials of a sweep by name, with their settings and states."""
    details = get_sweep(store_uri(tracking_uri, outputs), sweep)
    rows = [asdict(trial) for trial in details.trials]
    metric = details.summary.metric
    emit(details.trials, output, lambda: sweep_view.trials_table(rows, metric))
    if output == "table":
        next_commands([f"raylora sweeps status {sweep}{same_store(tracking_uri, outputs)}"])


@command.command()
@click.argument("sweep", metavar="SWEEP")
@click.argument("trial", metavar="TRIAL")
@tracking_option
@output_option
def stop(sweep: str, trial: str, tracking_uri: str | None, outputs: str, output: str) -> None:
    """End a trial where it stands; its place goes to the next one."""
    _request(sweep, StopTrial(trial), tracking_uri, outputs, output)


@command.command()
@click.argument("sweep", metavar="SWEEP")
@click.argument("trial", metavar="TRIAL")
@click.option(
    "--set",
    "changes",
    multiple=True,
    required=True,
    metavar="KEY=VALUE",
    help="What the new trial has otherwise, such as lora.r=32; may be given several times.",
)
@click.option("--warm", is_flag=True, help="Begin with the weights that TRIAL has now.")
@tracking_option
@output_option
def clone(
    sweep: str,
    trial: str,
    changes: tuple[str, ...],
    warm: bool,
    tracking_uri: str | None,
    outputs: str,
    output: str,
) -> None:
    """Begin another trial with the settings of TRIAL, but for those of --set."""
    request = CloneTrial(trial, settings_of(changes), warm)
    _request(sweep, request, tracking_uri, outputs, output)


def settings_of(changes: Sequence[str]) -> dict[str, Any]:
    """Values by key of a TrainSpec. Raises InvalidConfig with everything that is wrong."""
    settings: dict[str, Any] = {}
    problems: list[Problem] = []
    for text in changes:
        try:
            key, value = _setting(text)
            settings[key] = value
        except InvalidConfig as error:
            problems += error.problems
    if problems:
        raise InvalidConfig(problems)
    return settings


def _setting(text: str) -> tuple[str, Any]:
    keys = keys_of(TrainSpec)
    parsed = parse_override(text, keys)
    key = parsed.group if isinstance(parsed, Choice) else ".".join(parsed.names)
    field = keys.at(key)
    if isinstance(parsed, Choice) or parsed.delete or (field and field.is_section):
        wrong = "a clone gives single keys another value"
    elif key.partition(".")[0] in FIXED:
        wrong = "is the same in all trials"
    else:
        return key, parsed.value
    remedy = "Write KEY=VALUE with a key of model, data, lora, training or workers."
    raise InvalidConfig([Problem(key, wrong, remedy, f"--set {text}")])


def _request(
    sweep: str, request: Request, tracking_uri: str | None, outputs: str, output: str
) -> None:
    uri = store_uri(tracking_uri, outputs)
    asked = ask(uri, sweep, request)
    mlflow_run_id = get_sweep(uri, sweep).summary.mlflow_run_id
    deadline = time.monotonic() + ANSWER_S
    while (answer := answer_to(uri, mlflow_run_id, asked.id)) is None:
        if time.monotonic() > deadline:
            raise JobFailed(
                f"the driver of sweep {sweep} has not answered within {ANSWER_S:g} s",
                hint="it may do so later; where its job is dead (raylora jobs list): "
                f"raylora sweeps resume {sweep}",
            )
        time.sleep(LOOK_S)
    if not answer.done:
        raise JobFailed(f"the sweep refuses to {request.do} {request.trial}: {answer.text}")
    emit({"sweep": sweep, "do": request.do, "trial": request.trial, "answer": answer.text}, output)
    if output == "table":
        next_commands([f"raylora trials list {sweep}{same_store(tracking_uri, outputs)}"])
