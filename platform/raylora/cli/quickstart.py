"""`raylora quickstart`: the whole path on one machine, from a YAML to an answer over HTTP."""

import json
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Group

from raylora.cli import live
from raylora.cli.endpoint_client import Answer, EndpointClient
from raylora.cli.endpoint_start import start_endpoint
from raylora.cli.options import output_option, overrides_argument
from raylora.cli.output import emit, make_table, next_commands, note
from raylora.cli.submit import announce, as_trained, require_success
from raylora.cli.tracked import same_store
from raylora.cluster import applications, head, submission
from raylora.cluster.connect import Cluster, connect
from raylora.cluster.events import ResultEvent
from raylora.cluster.jobs import JobClient
from raylora.cluster.ports import free_ports, is_free
from raylora.config.compose import load_serve, load_train
from raylora.config.places import new_run_id
from raylora.config.serve_spec import ServeSpec
from raylora.config.train_spec import TrainSpec
from raylora.errors import JobFailed
from raylora.tracking.adapters.registry import CHAMPION, Registry
from raylora.tracking.location import tracking_uri

PRESET = "quickstart"


@click.command("quickstart")
@overrides_argument
@click.option("--keep", is_flag=True, help="Leave the cluster and the endpoint up.")
@output_option
def command(overrides: tuple[str, ...], keep: bool, output: str) -> None:
    """Fine-tune a small model, register the adapter, serve it and ask it.

    Everything runs on this machine and is stopped at the end. KEY=VALUE changes one value of the
    preset, such as training.max_steps=50.
    """
    started = time.monotonic()
    spec = load_train(PRESET, overrides).spec
    clock = _Clock()
    with _cluster(clock, keep) as cluster:
        result, scores = _train(spec, cluster, clock)
        with clock.stage("serve"):
            start_endpoint(_serve_spec(spec, result, cluster), cluster)
            url = str(applications.status(cluster).url)
        with clock.stage("ask"):
            sample = _telling_sample(Path(result.adapter_dir))
            answers = _ask(url, (spec.model.name, str(result.adapter)), spec, sample)
    report: dict[str, Any] = {
        "run_id": result.run_id,
        "adapter": result.adapter,
        "champion": _champion(spec),
        "base": spec.model.name,
        "scores": scores,
        "messages": sample["prompt"],
        "expected": sample["reference"],
        "answers": answers,
        "endpoint": url if keep else None,
        "stage_seconds": clock.seconds,
        "seconds": time.monotonic() - started,
        "next_commands": _next(spec, result, sample, keep),
    }
    emit(report, output, lambda: _tables(report))
    next_commands(report["next_commands"])


class _Clock:
    """Seconds by stage, in the order of the stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began


@contextmanager
def _cluster(clock: _Clock, keep: bool) -> Iterator[Cluster]:
    """The local head; what was not up before is stopped at the end unless it is to be kept."""
    was_up = head.running() is not None
    with clock.stage("cluster"):
        note("cluster: " + ("is up already" if was_up else "starting a local Ray cluster"))
        cluster = connect(None)
    served_before = applications.status(cluster).host is not None if was_up else False
    try:
        yield cluster
    finally:
        if not keep:
            with clock.stage("stop"):
                if not was_up:
                    head.stop()
                elif not served_before:
                    applications.shut_down(cluster)


def _train(
    spec: TrainSpec, cluster: Cluster, clock: _Clock
) -> tuple[ResultEvent, dict[str, dict[str, float]]]:
    """Run the fine-tuning job to its end; its result and its scores by subject."""
    client = JobClient(cluster)
    submitted = submission.submit(client, cluster, spec, run_id=new_run_id(), base=Path.cwd())
    announce(submitted, cluster)
    outcome = live.follow(client, submitted.job_id, "table")
    require_success(outcome)
    progress = outcome.progress
    clock.seconds.update(progress.stage_seconds)
    if progress.result is None or progress.result.adapter is None:
        raise JobFailed(
            f"job {submitted.job_id} registered no adapter",
            hint=f"raylora jobs logs {submitted.job_id}",
        )
    return progress.result, {event.subject: event.metrics for event in progress.evaluations}


def _serve_spec(spec: TrainSpec, result: ResultEvent, cluster: Cluster) -> ServeSpec:
    """The shipped endpoint with the new version, on the base as it was trained on."""
    shipped = load_serve(PRESET).spec
    port = applications.status(cluster).port
    if port is None:
        port = shipped.port if is_free(shipped.port) else free_ports(1)[0]
    return shipped.model_copy(
        update={
            "model": spec.model,
            "adapters": (str(result.adapter), f"{spec.adapter_name}@{CHAMPION}"),
            "outputs": spec.outputs,
            "tracking": spec.tracking,
            "port": port,
        }
    )


def _telling_sample(adapter_dir: Path) -> Mapping[str, Any]:
    """A held-out row that the adapter answers right and the base does not; else the first one."""
    predictions = adapter_dir.parent / "evaluation" / "predictions.jsonl"
    rows = [json.loads(line) for line in predictions.read_text(encoding="utf-8").splitlines()]
    right = {(row["subject"], row["line"]): row["scores"]["exact_match"] == 1.0 for row in rows}
    return next(
        (
            row
            for row in rows
            if row["subject"] == "adapter"
            and right["adapter", row["line"]]
            and not right["base", row["line"]]
        ),
        rows[0],
    )


def _ask(
    url: str, models: Sequence[str], spec: TrainSpec, sample: Mapping[str, Any]
) -> dict[str, Answer]:
    """The same question over HTTP to each model."""
    client = EndpointClient(url)
    options = {"temperature": 0, "max_tokens": spec.evaluation.max_new_tokens}
    return {
        model: client.chat(model, sample["prompt"], options, lambda _: None) for model in models
    }


def _champion(spec: TrainSpec) -> str:
    registry = Registry(tracking_uri(spec.tracking, spec.outputs))
    return str(registry.resolve(f"{spec.adapter_name}@{CHAMPION}"))


def _next(
    spec: TrainSpec, result: ResultEvent, sample: Mapping[str, Any], keep: bool
) -> list[str]:
    """Commands that work as they stand, in this order."""
    request = shlex.quote(sample["prompt"][-1]["content"])
    names = f"--model {spec.model.name} --model {spec.adapter_name}"
    store = same_store(spec.tracking.uri, spec.outputs)
    overrides = f" outputs={spec.outputs} tracking.uri={spec.tracking.uri or 'null'}"
    up = [] if keep else [f"raylora serve up{as_trained(spec)}{overrides if store else ''}"]
    return [
        f"raylora runs show {result.run_id}{store}",
        f"raylora adapters show {result.adapter}{store}",
        *up,
        f"raylora chat {names} {request}",
        "raylora serve down",
        "raylora cluster down",
    ]


def _tables(report: Mapping[str, Any]) -> Group:
    scores: dict[str, dict[str, float]] = report["scores"]
    metrics = list(next(iter(scores.values())))
    answers: dict[str, Answer] = report["answers"]
    stages: dict[str, float] = report["stage_seconds"]
    names = {"base": report["base"], "adapter": report["adapter"]}
    return Group(
        make_table(
            ("held-out rows", *(metric.replace("_", " ") for metric in metrics)),
            [
                (names[subject], *(f"{values[metric]:.1%}" for metric in metrics))
                for subject, values in scores.items()
            ],
        ),
        make_table(
            ("asked over HTTP", report["messages"][-1]["content"]),
            [
                *((f"{answer.model} answers", answer.text) for answer in answers.values()),
                ("expected", report["expected"]),
            ],
        ),
        make_table(
            ("stage", "seconds"),
            [
                *((name, round(seconds, 1)) for name, seconds in stages.items()),
                ("all", round(report["seconds"], 1)),
            ],
        ),
    )
