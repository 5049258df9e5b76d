"""A search is refused with everything that is wrong with it, before anything starts."""

from typing import Any

import pytest
from pydantic import ValidationError

from raylora.config.compose import read_resolved, resolved_yaml
from raylora.config.fused_rules import Sharing, sharing, why_alone
from raylora.config.search_space import Domain
from raylora.config.sweep_rules import changed, problems, with_settings
from raylora.config.sweep_spec import SweepSpec
from raylora.errors import InvalidConfig

TRAIN: dict[str, Any] = {"data": {"train": "rows.jsonl", "validation": "held_out.jsonl"}}
RANKS = {"lora.r": {"choice": [4, 8]}}


def sweep(space: dict[str, Any] = RANKS, **search: Any) -> SweepSpec:
    training = {"max_steps": 20, **search.pop("training", {})}
    fields = {**TRAIN, "training": training, "sweep": {"space": space, **search}}
    return SweepSpec.model_validate(fields)


def found(spec: SweepSpec) -> dict[str, str]:
    return {p.key: p.message for p in problems(spec.base, spec.sweep, "sweep.yaml")}


def test_a_search_that_can_be_run_has_no_problems():
    space = {
        "lora.r": {"choice": [4, 8, 64]},
        "lora.lora_alpha": {"times": ["lora.r", 2]},
        "training.learning_rate": {"loguniform": [1e-5, 1e-3]},
        "training.lr_scheduler, training.warmup_ratio": {
            "choice": [["linear", 0.05], ["cosine", 0.1]]
        },
        "training.weight_decay": {
            "uniform": [0, 0.1],
            "when": {"training.lr_scheduler": "cosine"},
        },
    }
    assert found(sweep(space)) == {}


@pytest.mark.parametrize(
    ("domain", "says"),
    [
        ({"uniform": [0.3, 0.1]}, "is reversed; write \\[0.1, 0.3\\]"),
        ({"uniform": [0.1, 0.1]}, "is empty"),
        ({"loguniform": [0, 1]}, "has no logarithm"),
        ({"integers": [4, 64, 0]}, "leads nowhere"),
        ({"quniform": [0, 1, -0.1]}, "leads nowhere"),
        ({"choice": []}, "at least 1 item"),
        ({}, "found none; write exactly one of choice, grid"),
        ({"choice": [1], "grid": [2]}, "found choice, grid"),
        ({"chioce": [1]}, "not permitted"),
    ],
)
def test_a_domain_without_values_is_refused(domain: dict[str, Any], says: str):
    with pytest.raises(ValidationError, match=says):
        Domain.model_validate(domain)


@pytest.mark.parametrize(
    ("space", "key", "says"),
    [
        ({}, "sweep.space", "nothing to search"),
        ({"lora.rnak": {"choice": [8]}}, "lora.rnak", "no such key"),
        ({"lora": {"choice": [8]}}, "lora", "is a section"),
        ({"name": {"choice": ["a", "b"]}}, "name", "is the same in all trials"),
        ({"lora.r": {"choice": [8, 0]}}, "sweep.space.lora.r", "greater than or equal to 1"),
        ({"lora.r": {"choice": [8, "many"]}}, "sweep.space.lora.r", "valid integer"),
        (
            {"training.learning_rate": {"uniform": [-1, 1]}},
            "sweep.space.training.learning_rate",
            "greater than 0",
        ),
        (
            {"lora.r, lora.lora_alpha": {"choice": [[8, 16], 4]}},
            "sweep.space.lora.r, lora.lora_alpha",
            "found 4 for 2 keys that move together",
        ),
        (
            {"lora.lora_alpha": {"times": ["lora.r", 2]}},
            "sweep.space.lora.lora_alpha",
            "lora.r is not searched",
        ),
        (
            {**RANKS, "lora.r, lora.lora_alpha": {"choice": [[8, 16]]}},
            "sweep.space.lora.r, lora.lora_alpha",
            "lora.r is searched twice",
        ),
    ],
)
def test_a_space_that_does_not_fit_the_spec_is_refused(space: dict[str, Any], key: str, says: str):
    assert says in found(sweep(space))[key]


@pytest.mark.parametrize(
    ("search", "key", "says"),
    [
        ({"metric": "accuracy"}, "sweep.metric", "no trial reports accuracy"),
        ({"metric": "validation_loss"}, "sweep.metric", "training.validation_steps is null"),
        (
            {
                "metric": "validation_exact_match",
                "training": {"validation_steps": 25},
            },
            "sweep.metric",
            "training.validation_answers is 0",
        ),
        ({"trials": None}, "sweep.trials", "has no end of its own"),
        ({"training": {"max_steps": None}}, "training.max_steps", "compared at equal steps"),
        (
            {"training": {"logging_steps": 10}},
            "sweep.report_steps",
            "5 is no multiple of training.logging_steps=10",
        ),
        (
            {"searcher": "grid", "space": {"training.learning_rate": {"uniform": [0.1, 0.2]}}},
            "sweep.searcher",
            "a grid needs values that can be counted",
        ),
    ],
)
def test_a_search_that_cannot_work_is_refused(search: dict[str, Any], key: str, says: str):
    assert says in found(sweep(**search))[key]


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        ({"space": {"model.quantization": {"choice": ["none", "nf4"]}}}, None),
        ({"space": {"lora.target_modules": {"choice": ["all-linear"]}}}, None),
        ({"space": {"lora.init_lora_weights": {"choice": ["pissa"]}}}, "lora.init_lora_weights"),
        ({"lora": {"use_dora": True}}, "lora.use_dora"),
        ({"training": {"neftune_noise_alpha": 5}}, "training.neftune_noise_alpha"),
        ({"workers": {"zero_stage": 2}}, "workers.zero_stage"),
    ],
)
def test_trials_that_cannot_share_a_base_are_refused_where_all_are_to_be_fused(
    spec: dict[str, Any], key: str | None
):
    spec = dict(spec)
    sections = {name: spec.pop(name) for name in ("lora", "workers") if name in spec}
    asked = sweep(**spec, execution="fused")
    wrong = SweepSpec.model_validate({**asked.model_dump(mode="json"), **sections})
    expected = key or f"sweep.space.{next(iter(wrong.sweep.space))}"
    assert set(found(wrong)) == {expected}
    for execution in ("auto", "isolated"):
        search = wrong.sweep.model_copy(update={"execution": execution})
        assert problems(wrong.base, search, "sweep.yaml") == []


def test_values_that_hinder_are_found_among_keys_that_move_together():
    together = {"lora.r, lora.init_lora_weights": {"choice": [[8, "default"], [16, "pissa"]]}}
    assert set(found(sweep(together, execution="fused"))) == {"lora.init_lora_weights"}


def test_isolated_trials_have_no_number_a_slot():
    assert (
        "share no base"
        in found(sweep(execution="isolated", trials_per_slot=4))["sweep.trials_per_slot"]
    )


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"lora.r": 64, "training.learning_rate": 0.1, "data.max_length": 64}, ""),
        ({"lora.target_modules": ["q_proj"]}, "lora.target_modules is not that of the others"),
        ({"model.quantization": "nf4"}, "model.quantization is not that of the others"),
        ({"lora.use_dora": True}, "DoRA needs the norms of the base's weights (lora.use_dora)"),
        ({"lora.init_lora_weights": "pissa"}, "takes something out of the base"),
        (
            {"training.validation_steps": 25, "training.validation_answers": 4},
            "answers are generated by one adapter at a time",
        ),
        (
            {"workers.num_workers": 1, "training.neftune_noise_alpha": 5},
            "noise on embeddings would reach all trials (training.neftune_noise_alpha); "
            "workers.num_workers is not that of the others",
        ),
    ],
)
def test_a_trial_that_cannot_share_the_base_says_every_reason(settings: dict[str, Any], says: str):
    base = sweep().base
    why = why_alone(base, with_settings(base, settings))
    assert says in why and bool(says) == bool(why)


@pytest.mark.parametrize(
    ("space", "search", "expected"),
    [
        (RANKS, {}, Sharing.ALL),
        (RANKS, {"execution": "isolated"}, Sharing.NONE),
        (RANKS, {"training": {"neftune_noise_alpha": 5}}, Sharing.NONE),
        ({"training.neftune_noise_alpha": {"choice": [0, 5]}}, {}, Sharing.SOME),
        ({"lora.target_modules": {"choice": ["all-linear", ["q_proj"]]}}, {}, Sharing.SOME),
    ],
)
def test_how_many_trials_share_is_known_of_the_search(
    space: dict[str, Any], search: dict[str, Any], expected: Sharing
):
    spec = sweep(space, **search)
    assert sharing(spec.base, spec.sweep) is expected


RATES = {**RANKS, "training.learning_rate": {"loguniform": [1e-4, 1e-2]}}
POPULATION: dict[str, Any] = {"scheduler": "pbt", "training": {"save_steps": 5}}


def test_a_population_that_can_be_run_has_no_problems():
    assert found(sweep(RATES, **POPULATION)) == {}
    validated = {"max_steps": 20, "save_steps": 5, "validation_steps": 10}
    asked = {**POPULATION, "metric": "validation_loss", "training": validated}
    assert found(sweep(RATES, **asked)) == {}


@pytest.mark.parametrize(
    ("space", "search", "key", "says"),
    [
        (RATES, {"searcher": "tpe"}, "sweep.searcher", "tpe learns from settings that stay"),
        (RANKS, {}, "sweep.space", "nothing to change on the way"),
        (RATES, {"at_once": 4}, "sweep.trials", "8 trials are more than at_once"),
        (RATES, {"trials": 1}, "sweep.trials", "1 trials cannot learn from each other"),
        (RATES, {"training": {}}, "training.save_steps", "every 25 steps, and they have 20"),
        (
            RATES,
            {"training": {"save_steps": 5, "logging_steps": 2}, "report_steps": 2},
            "training.save_steps",
            "5 is no multiple of training.logging_steps=2",
        ),
        (
            {**RATES, "training.neftune_noise_alpha": {"choice": [0, 5]}},
            {},
            "sweep.space",
            "some of these trials would share a base and others not",
        ),
    ],
)
def test_a_population_that_cannot_be_is_refused(
    space: dict[str, Any], search: dict[str, Any], key: str, says: str
):
    assert says in found(sweep(space, **{**POPULATION, **search}))[key]


def test_everything_is_said_at_once():
    spec = sweep({"lora.rnak": {"choice": [8]}, "lora.r": {"choice": [0]}}, metric="accuracy")
    assert found(spec).keys() == {"lora.rnak", "sweep.space.lora.r", "sweep.metric"}


def test_a_trial_is_the_base_with_other_values_and_can_be_told_from_it():
    base = sweep().base
    settings = {"lora.r": 4, "training.learning_rate": 0.01}
    trial = with_settings(base, settings)
    assert trial.lora.r == 4 and trial.data == base.data
    assert changed(base, trial) == settings


def test_values_that_do_not_go_together_are_no_trial():
    base = sweep().base
    with pytest.raises(InvalidConfig, match="lora.r=0"):
        with_settings(base, {"lora.r": 0})


def test_a_resolved_sweep_is_read_back_as_it_was(tmp_path):
    spec = sweep(on_finish={"register": False, "alias": "champion"})
    path = tmp_path / "spec.yaml"
    path.write_text(resolved_yaml(spec), encoding="utf-8")
    assert read_resolved(path, SweepSpec) == spec
