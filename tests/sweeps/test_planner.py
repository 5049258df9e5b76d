"""How many slots, how many trials in each, which trials alone: pure arithmetic, with reasons."""

from typing import Any

import pytest

from raylora.cluster.capacity import Node
from raylora.config.sweep_rules import with_settings
from raylora.config.sweep_spec import SweepSpec
from raylora.config.train_spec import TrainSpec
from raylora.errors import JobFailed
from raylora.sweeps.planner import Known, Memory, Plan, plan
from raylora.sweeps.slots import Slots

DORA = {"lora.use_dora": True}
NOTHING = Known()


def sweep(workers: dict[str, Any] | None = None, **search: Any) -> SweepSpec:
    workers = {"num_workers": 1, **(workers or {})}
    return SweepSpec.model_validate(
        {"workers": workers, "training": {"max_steps": 20}, "sweep": search}
    )


def trials(spec: SweepSpec, sharing: int, alone: int = 0) -> list[TrainSpec]:
    dora = with_settings(spec.base, DORA)
    return [*[spec.base] * sharing, *[dora] * alone]


def machine(cpus: float, **more: float) -> Node:
    return Node(f"10.0.0.{cpus:g}", {"CPU": cpus, **more})


def planned(
    spec: SweepSpec,
    nodes: list[Node],
    sharing: int = 8,
    alone: int = 0,
    known: Known | None = None,
) -> Plan:
    return plan(spec, trials(spec, sharing, alone), nodes, known or Known())


def shape(found: Plan) -> tuple[int, int, int]:
    """Slots, trials in each, isolated trials at once."""
    each = {slot.capacity for slot in found.slots} or {0}
    assert len(each) == 1
    return len(found.slots), each.pop(), found.isolated_at_once


@pytest.mark.parametrize(
    ("cpus", "number", "expected"),
    [
        (1, 8, (1, 8, 0)),
        (2, 8, (2, 4, 0)),
        (8, 8, (4, 2, 0)),  # a slot with one trial gains nothing
        (8, 3, (1, 3, 0)),
        (2, 1, (1, 1, 0)),
        (2, 40, (2, 8, 0)),
    ],
)
def test_trials_scale_out_by_slots_of_two_or_more(
    cpus: float, number: int, expected: tuple[int, int, int]
):
    found = planned(sweep(trials=number), [machine(cpus)], number)
    assert shape(found) == expected
    assert found.at_once == min(number, expected[0] * expected[1])


def test_a_slot_has_all_the_workers_that_the_spec_asks_for():
    spec = sweep({"num_workers": 2, "cpus_per_worker": 2})
    assert shape(planned(spec, [machine(8)])) == (2, 4, 0)
    assert shape(planned(spec, [machine(3), machine(6)])) == (2, 4, 0)
    found = planned(spec, [machine(4)])
    assert shape(found) == (1, 8, 0)
    assert found.slots[0].workers == spec.workers


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [(64, (2, 8, 0)), (280, (2, 4, 0)), (500, (2, 3, 0)), (512, (2, 1, 0)), (2048, (2, 1, 0))],
)
def test_no_trial_joins_a_slot_where_it_does_not_pay(
    tokens: float, expected: tuple[int, int, int]
):
    known = Known(tokens=tokens)
    found = planned(sweep(trials=40), [machine(2)], 40, known=known)
    assert shape(found) == expected
    assert "would gain nothing" in found.notices[-1]
    on_a_gpu = sweep({"gpus_per_worker": 1}, trials=40)
    assert shape(planned(on_a_gpu, [machine(2, GPU=1)], 40, known=known)) == (1, 8, 0)


def test_what_the_user_says_counts():
    assert shape(planned(sweep(at_once=4), [machine(2)])) == (2, 2, 0)
    filling = Known(tokens=2000)
    assert shape(planned(sweep(at_once=6), [machine(2)], known=filling)) == (2, 3, 0)
    assert shape(planned(sweep(trials_per_slot=1), [machine(4)])) == (4, 1, 0)
    assert shape(planned(sweep(trials_per_slot=8), [machine(4)])) == (1, 8, 0)
    limited = planned(sweep(trials_per_slot=2), [machine(2)])
    assert shape(limited) == (2, 2, 0)
    assert limited.notices[-1] == "4 of 8 trials train at a time: sweep.trials_per_slot=2"


def test_memory_bounds_slots_and_the_trials_in_them():
    known = Known(memory=Memory(shared=1000, trial=100))
    assert shape(planned(sweep(), [machine(2, memory=10_000)], known=known)) == (2, 4, 0)
    # two bases leave no room for more than three trials each, one for eight
    assert shape(planned(sweep(), [machine(2, memory=2_700)], known=known)) == (1, 8, 0)
    short = planned(sweep(), [machine(2, memory=1_450)], known=known)
    assert shape(short) == (1, 4, 0)
    assert "memory and CPUs or GPUs hold no more" in short.notices[-1]
    # what was estimated is no verdict
    assert shape(planned(sweep(), [machine(2, memory=500)], known=known)) == (1, 1, 0)


def test_trials_that_cannot_share_train_beside_the_others_and_it_is_said_why():
    found = planned(sweep(), [machine(2)], sharing=6, alone=2)
    assert shape(found) == (1, 6, 1)
    assert found.at_once == 7
    (said,) = [notice for notice in found.notices if "isolated" in notice]
    assert said.startswith("2 of 8 trials train isolated: DoRA needs")
    assert shape(planned(sweep(), [machine(8)], sharing=6, alone=2)) == (3, 2, 2)
    assert shape(planned(sweep(), [machine(8)], sharing=1, alone=7)) == (1, 1, 7)


def test_one_group_of_workers_is_not_given_to_a_base_that_others_would_wait_for():
    found = planned(sweep(), [machine(1)], sharing=6, alone=2)
    assert shape(found) == (0, 0, 1) and found.at_once == 1
    assert any("all train isolated" in notice for notice in found.notices)


def test_isolated_trials_take_what_the_cluster_has():
    spec = sweep(execution="isolated")
    found = planned(spec, [machine(4)])
    assert shape(found) == (0, 0, 4)
    assert found.notices[0] == "8 of 8 trials train isolated: sweep.execution=isolated"
    known = Known(memory=Memory(shared=1000, trial=100))
    assert shape(planned(spec, [machine(4, memory=2_500)], known=known)) == (0, 0, 2)
    assert shape(planned(sweep(execution="isolated", at_once=2), [machine(4)])) == (0, 0, 2)


def test_a_searcher_that_may_propose_what_cannot_share_leaves_room_for_it():
    space = {"lora.use_dora": {"choice": [False, True]}, "lora.r": {"choice": [4, 8]}}
    spec = sweep(trials=8, space=space, searcher="tpe")
    assert shape(plan(spec, [spec.base], [machine(4)], NOTHING)) == (3, 3, 1)


def test_a_population_trains_at_the_same_time():
    spec = sweep(scheduler="pbt", trials=24)
    assert shape(planned(spec, [machine(2)], 24)) == (2, 12, 0)
    known = Known(memory=Memory(shared=1000, trial=100))
    with pytest.raises(JobFailed, match="10 of the 24 trials"):
        planned(spec, [machine(1, memory=2_000)], 24, known=known)


def test_trials_are_spread_over_slots_and_follow_those_that_leave():
    spec = sweep(trials=4)
    slots = Slots(planned(spec, [machine(2)], 4), spec.base)
    where = {name: slots.slot_of(name, spec.base) for name in ("a", "b", "c", "d")}
    assert sorted(where.values()) == ["fused-1", "fused-1", "fused-2", "fused-2"]
    assert slots.slot_of("a", spec.base) == where["a"]
    slots.left("b")
    assert slots.slot_of("e", spec.base) == where["b"]


def test_trials_of_two_rates_in_turns_do_not_part_by_rate():
    spec = sweep(trials=8)
    slots = Slots(planned(spec, [machine(2)], 8), spec.base)
    where = [slots.slot_of(name, spec.base) for name in "abcdefgh"]
    low, high = where[::2], where[1::2]
    assert sorted(low) == sorted(high) == ["fused-1"] * 2 + ["fused-2"] * 2


def test_high_ranks_do_not_meet_in_one_slot():
    spec = sweep(trials=4)
    slots = Slots(planned(spec, [machine(2)], 4), spec.base)
    trials = {"a": 32, "b": 4, "c": 32, "d": 4}
    where = {
        name: slots.slot_of(name, with_settings(spec.base, {"lora.r": rank}))
        for name, rank in trials.items()
    }
    assert where["a"] != where["c"]
    assert where["b"] != where["d"]


def test_a_trial_that_cannot_share_has_a_slot_of_its_name():
    spec = sweep()
    slots = Slots(planned(spec, [machine(2)], sharing=6, alone=2), spec.base)
    assert slots.slot_of("alone", with_settings(spec.base, DORA)) == "alone"
    assert slots.slot_of("other", spec.base) == "fused-1"


def test_a_slot_that_is_lost_gets_no_trials():
    spec = sweep()
    slots = Slots(planned(spec, [machine(2)]), spec.base)
    slots.lost("fused-1", "its workers are lost")
    assert {slots.slot_of(name, spec.base) for name in "abcdefgh"} == {"fused-2"}
    slots.lost("fused-2", "its workers are lost")
    with pytest.raises(JobFailed, match="no slot takes trial i: its workers are lost"):
        slots.slot_of("i", spec.base)


def test_a_trial_for_which_nothing_is_planned_is_refused_with_the_reason():
    spec = sweep()
    slots = Slots(planned(spec, [machine(2)]), spec.base)
    with pytest.raises(JobFailed, match="no slot takes trial clone: DoRA needs"):
        slots.slot_of("clone", with_settings(spec.base, DORA))
