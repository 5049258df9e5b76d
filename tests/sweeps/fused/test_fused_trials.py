"""Trials that share a base give what each gives alone."""

import gc
import math

import pytest
import torch

from raylora.errors import JobFailed
from raylora.sweeps.fused.conductor import Conductor, Permission
from raylora.sweeps.fused.shared_passes import TrialPasses
from raylora.sweeps.fused.trial_bank import TrialBank


def assert_the_same(alone, together):
    assert together.error is None
    assert together.recorder.losses == pytest.approx(alone.recorder.losses, rel=1e-5)
    for key, weight in alone.weights.items():
        torch.testing.assert_close(together.weights[key], weight, rtol=1e-4, atol=1e-6)


def settings(trials, **training):
    """Trials of different rank, alpha, rate, decay, clipping and seed."""
    return {
        "first": trials.spec(lora={"r": 2}, training={"seed": 1, **training}),
        "second": trials.spec(
            lora={"r": 8, "lora_alpha": 4},
            training={"seed": 2, "learning_rate": 1e-3, "weight_decay": 0.1, **training},
        ),
        "third": trials.spec(
            lora={"r": 4, "use_rslora": True, "loraplus_lr_ratio": 4},
            training={"seed": 3, "max_grad_norm": 0.1, "lr_scheduler": "cosine", **training},
        ),
    }


def test_each_trial_learns_what_it_learns_alone(trials):
    specs = settings(trials)
    together = trials.together(specs)
    for name, spec in specs.items():
        assert_the_same(trials.alone(spec), together[name])


def test_swapped_seeds_are_noticed(trials):
    specs = settings(trials)
    together = trials.together(specs)
    alone = trials.alone(specs["first"])
    with pytest.raises(AssertionError):
        assert_the_same(alone, together["second"])


def test_dropout_comes_from_each_trials_own_seed(trials):
    dropped = {"lora": {"r": 4, "lora_dropout": 0.3}}
    specs = {
        "one": trials.spec(**dropped, training={"seed": 5}),
        "two": trials.spec(**dropped, training={"seed": 6}),
    }
    together = trials.together(specs)
    for name, spec in specs.items():
        assert_the_same(trials.alone(spec), together[name])
    without = trials.alone(trials.spec(lora={"r": 4}, training={"seed": 5}))
    assert without.recorder.losses != together["one"].recorder.losses


def test_layers_that_are_computed_twice_drop_the_same(trials):
    dropped = trials.spec(lora={"r": 4, "lora_dropout": 0.3})
    twice = trials.spec(
        lora={"r": 4, "lora_dropout": 0.3}, training={"activation_checkpointing": True}
    )
    together = trials.together({"first": twice, "second": twice})
    assert_the_same(trials.alone(dropped), together["second"])


def test_validation_looks_at_each_trials_own_adapter(trials):
    specs = settings(trials, validation_steps=3)
    together = trials.together(specs)
    for name, spec in specs.items():
        alone = [v.loss for v in trials.alone(spec).recorder.validations]
        assert [v.loss for v in together[name].recorder.validations] == pytest.approx(alone)


def test_small_passes_give_the_same_as_one_large(trials):
    specs = settings(trials)
    together = trials.together(specs, most_tokens=1)
    assert_the_same(trials.alone(specs["second"]), together["second"])


def test_trials_of_different_length_leave_one_by_one(trials):
    specs = {
        name: trials.spec(training={"max_steps": steps, "seed": steps})
        for name, steps in (("short", 2), ("long", 6))
    }
    together = trials.together(specs)
    assert [len(seen.recorder.losses) for seen in together.values()] == [2, 6]
    assert_the_same(trials.alone(specs["long"]), together["long"])


def test_a_trial_that_diverges_takes_no_other_with_it(trials):
    specs = {
        "wild": trials.spec(training={"learning_rate": 1e30, "warmup_ratio": 0}),
        "calm": trials.spec(training={"seed": 1}),
    }
    together = trials.together(specs)
    assert isinstance(together["wild"].error, JobFailed)
    assert "diverged" in together["wild"].error.message
    assert_the_same(trials.alone(specs["calm"]), together["calm"])


def test_a_trial_may_join_later_and_be_stopped(trials):
    spec = trials.spec(training={"seed": 7})
    bank = TrialBank(trials.tiny.llama(), spec.lora)
    conductor = Conductor(bank.passes)
    early, late = trials.tiny.Recorder(), trials.tiny.Recorder()
    conductor.join("early", trials.play(bank, "early", trials.spec(), early))
    for _ in range(5):
        conductor.round()
    conductor.join("late", trials.play(bank, "late", spec, late))
    conductor.round()
    (stopped,) = conductor.stop("early")
    assert stopped.was_stopped
    bank.leave("early")
    assert bank.adapters == ["late"]
    while conductor.runnable:
        assert all(f.ended.error is None for f in conductor.round())
    assert late.losses == pytest.approx(trials.alone(spec).recorder.losses, rel=1e-5)
    assert len(early.losses) < 6


def test_a_trial_that_waits_for_permission_holds_up_nobody(trials):
    spec = trials.spec()
    bank = TrialBank(trials.tiny.llama(), spec.lora)
    conductor = Conductor(bank.passes)
    steps = []

    def cautious(player):
        passes = TrialPasses(player, "cautious")
        backend = bank.enter("cautious", spec, passes)
        recorder = trials.tiny.Recorder()
        recorder.stepped = lambda report: (
            steps.append(report.step),
            player.ask(Permission(report)),
        )
        trials.train(spec, backend, bank.base, recorder, "cautious")

    other = trials.tiny.Recorder()
    conductor.join("cautious", cautious)
    conductor.join("other", trials.play(bank, "other", trials.spec(), other))
    while conductor.runnable:
        conductor.round()
    assert steps == [1]
    assert len(other.losses) == 6
    assert conductor.waiting["cautious"].step == 1
    conductor.permit("cautious")
    while conductor.runnable:
        conductor.round()
    assert steps == [1, 2]


def test_memory_that_runs_out_halves_the_pass_then_the_micro_batch(trials, monkeypatch):
    gc.collect()
    gc.freeze()  # of what other tests have imported: each half collects, in up to 0.6 s
    specs = settings(trials)
    base = trials.tiny.llama()
    bank = TrialBank(base, specs["first"].lora)
    forward = type(base.model).forward

    def small(self, input_ids, **rest):
        if len(rest["documents"].lengths) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to")
        return forward(self, input_ids=input_ids, **rest)

    monkeypatch.setattr(type(base.model), "forward", small)
    conductor = Conductor(bank.passes)
    recorders = {name: trials.tiny.Recorder() for name in specs}
    for name, spec in specs.items():
        conductor.join(name, trials.play(bank, name, spec, recorders[name]))
    while conductor.runnable:
        assert all(f.ended.error is None for f in conductor.round())
    monkeypatch.undo()
    for name, spec in specs.items():
        assert recorders[name].micro_batch_sizes == [1]
        # Sums of halves round otherwise, and steps at a high rate make more of that: up to 1.1e-3
        # by the sixth, on one kind of processor.
        alone = trials.alone(spec).recorder.losses
        assert recorders[name].losses == pytest.approx(alone, rel=5e-3)


def test_bf16_stays_within_what_bf16_itself_varies(trials):
    specs = settings(trials)
    together = trials.together(specs, torch.bfloat16)
    for name, spec in specs.items():
        alone = trials.alone(spec, torch.bfloat16).recorder.losses
        assert together[name].recorder.losses == pytest.approx(alone, rel=2e-2)
        assert all(map(math.isfinite, alone))
