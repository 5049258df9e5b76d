import math

import pytest
import torch

from raylora.errors import JobFailed

pytestmark = pytest.mark.usefixtures("process_group")


def interrupted_then_resumed(tiny, directory, fail_after: int, **settings):
    """Train until a step, lose the worker, train on; the model and what the second part saw."""
    run = tiny.TinyRun(str(directory), **settings)
    with pytest.raises(KeyboardInterrupt):
        run.start(tiny.Recorder(fail_after=fail_after))
    recorder = tiny.Recorder()
    return run.start(recorder), recorder


@pytest.mark.parametrize(
    "settings",
    [
        {"bf16": False},
        {"bf16": True},
        {"bf16": True, "zero_stage": 0},
        {"zero_stage": 0, "training": {"weight_decay": 0.1}},
        {"zero_stage": 1, "dropout": 0.2},
    ],
)
def test_resume_is_exact(tiny, tmp_path, settings):
    whole = tiny.Recorder()
    expected = tiny.adapter_of(tiny.TinyRun(str(tmp_path / "a"), **settings).start(whole))

    model, rest = interrupted_then_resumed(tiny, tmp_path / "b", fail_after=5, **settings)

    assert rest.resumed_at == 3  # of 8 steps, saved at 3, 6 and 8
    assert rest.losses == whole.losses[3:]
    resumed = tiny.adapter_of(model)
    assert all(torch.equal(resumed[name], tensor) for name, tensor in expected.items())


def test_a_damaged_checkpoint_costs_steps_but_changes_nothing(tiny, tmp_path):
    expected = tiny.adapter_of(tiny.TinyRun(str(tmp_path / "a")).start(tiny.Recorder()))
    with pytest.raises(KeyboardInterrupt):
        tiny.TinyRun(str(tmp_path / "b")).start(tiny.Recorder(fail_after=7))
    newest = tmp_path / "b" / "step-000006" / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])

    recorder = tiny.Recorder()
    resumed = tiny.adapter_of(tiny.TinyRun(str(tmp_path / "b")).start(recorder))

    assert recorder.resumed_at == 3
    assert all(torch.equal(resumed[name], tensor) for name, tensor in expected.items())


def test_a_finished_run_has_nothing_left_to_do(tiny, tmp_path):
    run = tiny.TinyRun(str(tmp_path))
    first = tiny.adapter_of(run.start(tiny.Recorder()))
    again = tiny.Recorder()
    second = tiny.adapter_of(run.start(again))
    assert again.resumed_at == 8 and again.reports == []
    assert all(torch.equal(second[name], tensor) for name, tensor in first.items())


def test_observes_and_saves_when_the_spec_says_so(tiny, tmp_path):
    recorder = tiny.Recorder()
    tiny.TinyRun(str(tmp_path), training={"logging_steps": 3}).start(recorder)
    assert [report.step for report in recorder.reports] == [3, 6, 8]
    assert recorder.saves == [3, 6, 8]
    last = recorder.reports[-1]
    assert last.total_steps == 8 and last.eta_seconds == 0
    assert last.tokens_per_second > last.supervised_tokens_per_second > 0
    assert last.grad_norm > 0 and last.memory_bytes > 1_000_000


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_the_loss_falls_and_stages_agree(tiny, tmp_path, stage):
    settings = {"max_steps": 12, "weight_decay": 0.01, "max_grad_norm": 0.1}
    runs = [(0, tmp_path / "0"), (stage, tmp_path / "n")]
    recorders = [tiny.Recorder() for _ in runs]
    for (number, directory), recorder in zip(runs, recorders, strict=True):
        tiny.TinyRun(str(directory), zero_stage=number, rows=4, training=settings).start(recorder)
    reference, ours = recorders
    assert ours.losses == pytest.approx(reference.losses, rel=1e-6)
    norms = [[report.grad_norm for report in recorder.reports] for recorder in recorders]
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)
    assert ours.losses[-1] < ours.losses[0]


def test_micro_batches_do_not_change_the_loss(tiny, tmp_path):
    recorders = [tiny.Recorder() for _ in range(2)]
    for size, recorder in zip((1, 4), recorders, strict=True):
        training = {"micro_batch_size": size}
        tiny.TinyRun(str(tmp_path / str(size)), training=training).start(recorder)
    assert recorders[0].losses == pytest.approx(recorders[1].losses, rel=1e-5)


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_step(tiny, tmp_path):
    recorder = tiny.Recorder()
    training = {"learning_rate": 1e30, "max_grad_norm": 1e30, "logging_steps": 2}
    with pytest.raises(JobFailed, match="the loss is (nan|inf) at step 2"):
        tiny.TinyRun(str(tmp_path), training=training).start(recorder)
    assert all(math.isfinite(loss) for loss in recorder.losses)


def test_a_checkpoint_of_other_data_is_refused(tiny, tmp_path):
    tiny.TinyRun(str(tmp_path)).start(tiny.Recorder())
    with pytest.raises(JobFailed, match="was trained on data"):
        tiny.TinyRun(str(tmp_path), rows=20).start(tiny.Recorder())
