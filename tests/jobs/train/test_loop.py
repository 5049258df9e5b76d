import math

import pytest
import torch

from raylora.errors import JobFailed
from raylora.jobs.train.checkpoint import Checkpoints

pytestmark = pytest.mark.usefixtures("process_group")


ZERO_0, ZERO_1, ZERO_2, ZERO_3 = (
    {"backend": "deepspeed", "zero_stage": stage} for stage in range(4)
)


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
        {},
        {"dtype": "bfloat16", "training": {"logging_steps": 2}},
        {"workers": ZERO_0, "dtype": "bfloat16"},
        {"workers": ZERO_0, "training": {"weight_decay": 0.1}},
        {"workers": ZERO_1, "dropout": 0.2},
        {"workers": ZERO_2, "dtype": "bfloat16", "lr_scale_of_b": 4.0},
        {"workers": ZERO_3},
        {"dropout": 0.2, "training": {"deterministic": True, "lr_scheduler": "wsd"}},
    ],
)
def test_resume_is_exact(tiny, tmp_path, settings):
    whole = tiny.Recorder()
    expected = tiny.adapter_of(tiny.TinyRun(str(tmp_path / "a"), **settings).start(whole))

    model, rest = interrupted_then_resumed(tiny, tmp_path / "b", fail_after=4, **settings)

    assert rest.resumed_at == 3  # of 8 steps, saved at 3, 6 and 8
    assert rest.losses == [report.loss for report in whole.reports if report.step > 3]
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
    assert last.grad_norm > 0 and last.mfu > 0
    assert last.memory_bytes == max(last.worker_memory_bytes) > 1_000_000


@pytest.mark.parametrize("workers", [ZERO_0, ZERO_1, ZERO_2, ZERO_3])
def test_the_loss_falls_and_backends_agree(tiny, tmp_path, workers):
    settings = {"max_steps": 12, "weight_decay": 0.01, "max_grad_norm": 0.1}
    runs = [({"backend": "torch"}, tmp_path / "0"), (workers, tmp_path / "n")]
    recorders = [tiny.Recorder() for _ in runs]
    for (which, directory), recorder in zip(runs, recorders, strict=True):
        tiny.TinyRun(str(directory), workers=which, rows=4, training=settings).start(recorder)
    reference, ours = recorders
    assert ours.losses == pytest.approx(reference.losses, rel=1e-5)
    norms = [[report.grad_norm for report in recorder.reports] for recorder in recorders]
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)
    assert ours.losses[-1] < ours.losses[0]


def test_micro_batches_do_not_change_the_loss(tiny, tmp_path):
    recorders = [tiny.Recorder() for _ in range(2)]
    for size, recorder in zip((1, 4), recorders, strict=True):
        training = {"micro_batch_size": size}
        tiny.TinyRun(str(tmp_path / str(size)), training=training).start(recorder)
    assert recorders[0].losses == pytest.approx(recorders[1].losses, rel=1e-5)


@pytest.mark.parametrize("workers", [{"backend": "torch"}, ZERO_2, ZERO_3])
def test_a_loss_that_is_no_number_stops_the_run_and_names_the_step(tiny, tmp_path, workers):
    recorder = tiny.Recorder()
    training = {"learning_rate": 1e30, "max_grad_norm": 1e30, "logging_steps": 2}
    with pytest.raises(JobFailed, match="the loss is (nan|inf) at step 2"):
        tiny.TinyRun(str(tmp_path), workers=workers, training=training).start(recorder)
    assert all(math.isfinite(loss) for loss in recorder.losses)


def test_a_checkpoint_of_other_data_is_refused(tiny, tmp_path):
    tiny.TinyRun(str(tmp_path)).start(tiny.Recorder())
    with pytest.raises(JobFailed, match="was trained on data"):
        tiny.TinyRun(str(tmp_path), rows=20).start(tiny.Recorder())


def test_an_interruption_at_any_step_changes_nothing(tiny, tmp_path):
    settings = {"training": {"save_steps": 2, "deterministic": True}, "dropout": 0.1}
    expected = tiny.adapter_of(
        tiny.TinyRun(str(tmp_path / "whole"), **settings).start(tiny.Recorder())
    )
    for step in range(1, 9):
        model, rest = interrupted_then_resumed(
            tiny, tmp_path / str(step), fail_after=step, **settings
        )
        assert rest.resumed_at == (step - 1) // 2 * 2
        resumed = tiny.adapter_of(model)
        assert all(torch.equal(resumed[name], tensor) for name, tensor in expected.items())


def test_one_backend_goes_on_from_a_checkpoint_of_another(tiny, tmp_path):
    whole = tiny.Recorder()
    tiny.TinyRun(str(tmp_path / "a"), workers={"backend": "torch"}).start(whole)
    with pytest.raises(KeyboardInterrupt):
        tiny.TinyRun(str(tmp_path / "b"), workers=ZERO_3).start(tiny.Recorder(fail_after=7))
    rest = tiny.Recorder()
    tiny.TinyRun(str(tmp_path / "b"), workers=ZERO_1).start(rest)
    assert rest.resumed_at == 6
    assert rest.losses == pytest.approx(whole.losses[6:], rel=1e-5)


def test_activation_checkpointing_changes_no_number(tiny, tmp_path):
    recorders = [tiny.Recorder() for _ in range(2)]
    for on, recorder in zip((False, True), recorders, strict=True):
        training = {"activation_checkpointing": on}
        tiny.TinyRun(str(tmp_path / str(on)), training=training).start(recorder)
    assert recorders[1].losses == pytest.approx(recorders[0].losses, rel=1e-6)


def test_fp16_scales_its_loss_and_resumes_with_the_scale(tiny, tmp_path):
    settings = {"dtype": "float16", "workers": {"backend": "torch"}}
    full, whole = tiny.Recorder(), tiny.Recorder()
    tiny.TinyRun(str(tmp_path / "full")).start(full)
    expected = tiny.adapter_of(tiny.TinyRun(str(tmp_path / "a"), **settings).start(whole))
    assert whole.losses == pytest.approx(full.losses, rel=1e-2)
    model, rest = interrupted_then_resumed(tiny, tmp_path / "b", fail_after=4, **settings)
    assert rest.losses == whole.losses[3:]
    resumed = tiny.adapter_of(model)
    assert all(torch.equal(resumed[name], tensor) for name, tensor in expected.items())


def test_moments_in_8_bits_learn_and_resume(tiny, tmp_path):
    # Fewer than 4096 weights would stay in 32 bits.
    settings = {"workers": {"backend": "torch"}, "training": {"optimizer": "adamw_8bit"}}
    whole = tiny.Recorder()
    expected = tiny.adapter_of(tiny.TinyRun(str(tmp_path / "a"), **settings).start(whole))
    model, rest = interrupted_then_resumed(tiny, tmp_path / "b", fail_after=4, **settings)
    assert rest.losses == whole.losses[3:]
    resumed = tiny.adapter_of(model)
    assert all(torch.equal(resumed[name], tensor) for name, tensor in expected.items())


def test_memory_that_runs_out_halves_the_micro_batch(tiny, tmp_path):
    expected, short = tiny.Recorder(), tiny.Recorder()
    training = {"micro_batch_size": 4}
    tiny.TinyRun(str(tmp_path / "a"), training=training).start(expected)
    tiny.TinyRun(str(tmp_path / "b"), training=training, room=(0, 1)).start(short)
    assert short.micro_batch_sizes == [2, 1]
    assert short.losses == pytest.approx(expected.losses, rel=1e-5)


def test_memory_for_not_one_row_ends_the_run_with_what_to_do(tiny, tmp_path):
    with pytest.raises(JobFailed, match="one row") as caught:
        tiny.TinyRun(str(tmp_path), room=(0, 0)).start(tiny.Recorder())
    assert "activation_checkpointing" in str(caught.value.hint)


def test_the_best_validation_is_kept_and_used(tiny, tmp_path):
    # At this rate the model forgets: the held-out loss rises after the first looks.
    training = {
        "max_steps": 12,
        "save_steps": 1,
        "validation_steps": 2,
        "learning_rate": 0.3,
        "lr_scheduler": "constant",
        "early_stopping_patience": 3,
    }
    run = tiny.TinyRun(str(tmp_path), training=training, held_out=6)
    recorder = tiny.Recorder()
    model, outcome, backend = run.train(recorder)

    losses = {validation.step: validation.loss for validation in recorder.validations}
    best = min(losses, key=losses.__getitem__)
    assert outcome.kept_step == best < outcome.steps == best + 6 <= 12
    checkpoint = Checkpoints(tmp_path, 2).of_step(best)
    assert checkpoint is not None
    kept, progress = checkpoint.load()
    assert progress.step == best
    trained = backend.gather_state()
    assert all(torch.equal(trained[key], tensor) for key, tensor in kept.items())
    weights = tiny.adapter_of(model)
    assert all(torch.equal(weights[name], kept[f"weight/{name}"]) for name in weights)

    again = run.train(tiny.Recorder())[1]
    assert (again.steps, again.kept_step, again.loss) == (
        outcome.steps,
        outcome.kept_step,
        outcome.loss,
    )


def test_without_keep_best_the_last_weights_stay(tiny, tmp_path):
    training = {"save_steps": 1, "validation_steps": 2, "learning_rate": 0.3, "keep_best": False}
    run = tiny.TinyRun(str(tmp_path), training=training, held_out=6)
    assert run.train(tiny.Recorder())[1].kept_step == 8


def test_a_validation_is_remembered_by_a_run_that_goes_on(tiny, tmp_path):
    settings = {"training": {"validation_steps": 3}, "held_out": 6}
    whole = tiny.Recorder()
    tiny.TinyRun(str(tmp_path / "a"), **settings).start(whole)
    _, rest = interrupted_then_resumed(tiny, tmp_path / "b", fail_after=7, **settings)
    newest = Checkpoints(tmp_path / "b", 2).newest()
    assert newest is not None
    progress = newest.load()[1]
    assert [validation.step for validation in progress.validations] == [3, 6, 8]
    assert progress.validations == whole.validations
    assert [validation.step for validation in rest.validations] == [8]


@pytest.mark.parametrize("noise", [0.0, 20.0])
def test_noise_on_embeddings_changes_training_and_spares_validation(tiny, tmp_path, noise):
    plain, noisy = tiny.Recorder(), tiny.Recorder()
    training = {"validation_steps": 1, "save_steps": 1, "learning_rate": 1e-9, "max_steps": 2}
    tiny.TinyRun(str(tmp_path / "a"), training=training, held_out=4).start(plain)
    training = training | {"neftune_noise_alpha": noise}
    tiny.TinyRun(str(tmp_path / "b"), training=training, held_out=4).start(noisy)
    assert (plain.losses == noisy.losses) == (noise == 0)
    for ours, theirs in zip(noisy.validations, plain.validations, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
