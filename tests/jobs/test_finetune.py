"""The driver on a real local cluster, with the tiny model: a whole run, and bad ends."""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from raylora.cli.main import cli
from raylora.cluster.bundle import build
from raylora.cluster.connect import Cluster
from raylora.cluster.events import (
    EvaluationEvent,
    Event,
    RestartEvent,
    ResultEvent,
    StageEvent,
    StepEvent,
    ValidationEvent,
    parse,
)
from raylora.cluster.job_info import JobState
from raylora.cluster.jobs import JobClient
from raylora.config.compose import resolved_yaml
from raylora.config.places import new_run_id, run_dir
from raylora.config.train_spec import TrainSpec
from raylora.tracking.adapters.lineage import lineage_of
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.runs import get_run

pytestmark = pytest.mark.ray

STEPS = 300

ROWS = [
    {"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]}
    for ask, answer in [("on", '{"a":1}'), ("off", '{"a":0}'), ("up", '{"a":2}'), ("no", "{}")]
]


DIVERGING = {
    "max_steps": 6,
    "global_batch_size": 4,
    "micro_batch_size": 2,
    "learning_rate": 1e30,
    "max_grad_norm": 1e30,
}


@pytest.fixture(scope="module")
def make_spec(tiny_base: Path, tmp_path_factory) -> Callable[..., TrainSpec]:
    folder = tmp_path_factory.mktemp("rl")
    for name, rows in {"train": ROWS, "heldout": ROWS[:2]}.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")

    def make(steps: int, **changes) -> TrainSpec:
        fields = {
            "name": "tiny",
            "outputs": str(folder / "outputs"),
            "model": {"source": "path", "id": str(tiny_base), "name": "tiny", "dtype": "fp32"},
            "data": {
                "train": str(folder / "train.jsonl"),
                "validation": str(folder / "heldout.jsonl"),
            },
            "training": {
                "max_steps": steps,
                "save_steps": 20,
                "global_batch_size": 4,
                "micro_batch_size": 2,
                "learning_rate": 1e-2,
            },
            "evaluation": {"max_new_tokens": 4},
        }
        return TrainSpec.model_validate({**fields, **changes})

    return make


@pytest.fixture
def submit(local_cluster: Cluster) -> Iterator[Callable[[TrainSpec], tuple[JobClient, str]]]:
    """Start the driver as a job; its run id is its job id. Whatever still runs is stopped."""
    client = JobClient(local_cluster)
    started: list[str] = []

    def start(spec: TrainSpec) -> tuple[JobClient, str]:
        run_id = new_run_id()
        bundle = build(resolved_yaml(spec))
        program = "raylora.jobs.finetune"
        arguments = ["spec.yaml", "--run-id", run_id]
        client.submit(program, arguments, bundle, run_id=run_id, warm=True)
        started.append(run_id)
        return client, run_id

    yield start
    for run_id in started:
        client.stop(run_id)


def events_of(client: JobClient, run_id: str) -> Iterator[Event]:
    for line in client.follow(run_id):
        event = parse(line)
        if event is not None:
            yield event


def kill_second_worker(log: str) -> None:
    """SIGKILL the worker of rank 1: the log names its process."""
    os.kill(int(re.findall(r"pid=(\d+)\) world_rank=1\b", log)[-1]), signal.SIGKILL)


def uri_of(spec: TrainSpec) -> str:
    return f"sqlite:///{spec.outputs}/mlflow.db"


def test_a_killed_worker_costs_steps_and_nothing_else(make_spec, submit, tmp_path):
    spec = make_spec(STEPS)
    client, run_id = submit(spec)
    events: list[Event] = []
    killed = False
    for event in events_of(client, run_id):
        events.append(event)
        if isinstance(event, StepEvent) and event.step >= 25 and not killed:
            kill_second_worker(client.logs(run_id))
            killed = True
    assert client.status(run_id).state is JobState.SUCCEEDED, client.logs(run_id)[-3000:]

    restarts = [event for event in events if isinstance(event, RestartEvent)]
    assert [event.attempt for event in restarts] == [1]
    assert restarts[0].resumed_step >= 20
    steps = [event.step for event in events if isinstance(event, StepEvent)]
    assert set(steps) == set(range(1, STEPS + 1))
    stages = [event.stage for event in events if isinstance(event, StageEvent)]
    assert [s for s in stages if s not in ("base", "data", "train")] == [
        "verify",
        "evaluate",
        "register",
        "done",
    ]
    scored = {event.subject: event for event in events if isinstance(event, EvaluationEvent)}
    assert scored.keys() == {"base", "adapter"} and scored["adapter"].rows == 2

    result = events[-1]
    assert isinstance(result, ResultEvent)
    assert result.adapter == "tiny@1" and result.aliases == ["champion"]
    run = get_run(uri_of(spec), run_id)
    assert run.summary.status == "FINISHED" and run.summary.mlflow_run_id == result.mlflow_run_id
    assert run.metrics["loss"].points == run.metrics["loss"].last_step == STEPS
    assert run.metrics["heldout_exact_match"].points == 1
    assert {data.context for data in run.datasets} == {"training", "validation"}

    places = run_dir(spec.outputs, spec.tracking.experiment, run_id)
    lines = (places.logs / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, STEPS + 1))
    version = Registry(uri_of(spec)).resolve("tiny@champion")
    copy = Registry(uri_of(spec)).download(version, tmp_path)
    registered = load_file(copy / "adapter_model.safetensors")
    trained = load_file(Path(result.adapter_dir) / "adapter_model.safetensors")
    assert all(torch.equal(registered[key], tensor) for key, tensor in trained.items())


def test_a_diverged_run_fails_at_once_and_registers_nothing(make_spec, submit):
    spec = make_spec(6, name="diverged", training=DIVERGING)
    client, run_id = submit(spec)
    stages = [e.stage for e in events_of(client, run_id) if isinstance(e, StageEvent)]
    assert client.status(run_id).state is JobState.FAILED
    assert "verify" not in stages and stages.count("train") == 1  # not tried again
    assert "training diverged" in client.logs(run_id)
    assert get_run(uri_of(spec), run_id).summary.status == "FAILED"
    assert "diverged" not in [adapter.name for adapter in Registry(uri_of(spec)).list()]


def test_a_stopped_run_is_killed_in_mlflow_too(make_spec, submit):
    spec = make_spec(100_000, name="stopped")
    client, run_id = submit(spec)
    next(event for event in events_of(client, run_id) if isinstance(event, StepEvent))
    began = time.monotonic()
    assert client.stop(run_id).state is JobState.STOPPED
    assert time.monotonic() - began < 30
    assert get_run(uri_of(spec), run_id).summary.status == "KILLED"


def test_a_run_validates_stops_early_and_keeps_its_best(make_spec, submit, tmp_path):
    # Long answers of letters that no training row has: the surer the model, the worse it gets.
    contrary = json.dumps({"prompt": "on", "completion": "xyzw" * 8}) + "\n"
    (tmp_path / "contrary.jsonl").write_text(2 * contrary, encoding="utf-8")
    rows = {"train": make_spec(1).data.train, "validation": str(tmp_path / "contrary.jsonl")}
    training = {
        "max_steps": 40,
        "save_steps": 2,
        "validation_steps": 2,
        "validation_answers": 1,
        "early_stopping_patience": 1,
        "global_batch_size": 4,
        "learning_rate": 1e-2,
    }
    # DoRA cannot share a batch, so it is judged merged; [1, 2] takes what there is room for.
    spec = make_spec(
        40,
        name="stopping",
        data=rows,
        training=training,
        lora={"use_dora": True},
        workers={"num_workers": [1, 2]},
    )
    client, run_id = submit(spec)
    events = list(events_of(client, run_id))
    assert client.status(run_id).state is JobState.SUCCEEDED, client.logs(run_id)[-3000:]
    assert "Failed to stop PlacementGroupCleaner" not in client.logs(run_id)
    # The run that was stopped before it claims nothing any more.
    assert "Deciding NOT to start" not in client.logs(run_id)

    looks = [event for event in events if isinstance(event, ValidationEvent)]
    steps = [event.step for event in events if isinstance(event, StepEvent)]
    assert looks[-1].step == steps[-1] < 40 and not looks[-1].best
    assert looks[-1].metrics.keys() == set(spec.evaluation.metrics)
    best = [look.step for look in looks if look.best][-1]
    scored = {event.subject for event in events if isinstance(event, EvaluationEvent)}
    assert scored == {"base", "adapter"}
    run = get_run(uri_of(spec), run_id)
    assert run.tags["raylora.kept_step"] == str(best)
    assert run.metrics["validation_loss"].points == len(looks)
    logs = run_dir(spec.outputs, spec.tracking.experiment, run_id).logs
    lines = (logs / "validations.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [look.step for look in looks]
    assert list((logs / "tensorboard").glob("events.out.tfevents.*"))


@pytest.mark.usefixtures("second_node")
def test_two_nodes_train_as_one(make_spec, submit, local_cluster):
    training = {"max_steps": 6, "micro_batch_size": 2, "learning_rate": 1e-2}
    # One CPU more than the first node has: the workers need both nodes.
    everything = int(JobClient(local_cluster).capacity()["CPU"])
    losses: list[list[float]] = []
    for workers in (1, everything):
        spec = make_spec(
            6,
            name=f"workers-{workers}",
            training={**training, "global_batch_size": 2 * everything},
            # Split over the nodes, weights included, against one that has them all.
            workers={"num_workers": workers, "zero_stage": 1 if workers == 1 else 3},
        )
        client, run_id = submit(spec)
        steps = [e for e in events_of(client, run_id) if isinstance(e, StepEvent)]
        assert client.status(run_id).state is JobState.SUCCEEDED, client.logs(run_id)[-3000:]
        losses.append([step.loss for step in steps])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.slow
def test_a_version_is_trained_again_from_its_lineage_bit_for_bit(make_spec, submit, tmp_path):
    spec = make_spec(
        6,
        name="again",
        workers={"num_workers": 1},
        gate={"at_least": {"heldout_exact_match": 2.0}},
    )
    client, run_id = submit(spec)
    result = list(events_of(client, run_id))[-1]
    assert isinstance(result, ResultEvent), client.logs(run_id)[-3000:]
    # Registered, and held back by its gate.
    assert (result.adapter, result.aliases) == ("again@1", [])
    lineage = lineage_of(Registry(uri_of(spec)), Registry(uri_of(spec)).resolve("again@1"))
    assert lineage.missing == []
    assert lineage.facts["spec"]["training"]["max_steps"] == 6
    assert {"final_loss", "heldout_exact_match"} <= lineage.metrics.keys()

    # The file has gone elsewhere, as files do.
    rows = tmp_path / "moved.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    command = ["rerun", "again@1", f"data.train={rows}", "--outputs", spec.outputs, "-o", "json"]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    ended = json.loads(done.stdout.splitlines()[-1])
    folder = run_dir(spec.outputs, spec.tracking.experiment, ended["run_id"])
    report = json.loads((folder.metadata / "rerun.json").read_text(encoding="utf-8"))
    assert report["same_bits"] and report["bits_expected"] and report["reproduced"]
    assert {c["metric"] for c in report["metrics"]} >= {"final_loss", "heldout_exact_match"}
    assert Registry(uri_of(spec)).numbers("again") == [1]
    assert get_run(uri_of(spec), ended["run_id"]).tags["raylora.rerun_of"] == "again@1"

    rows.write_text(json.dumps(ROWS[0]) + "\n", encoding="utf-8")
    other = CliRunner().invoke(cli, command)
    assert other.exit_code == 6, other.output
    assert "trained with other training rows" in other.output
