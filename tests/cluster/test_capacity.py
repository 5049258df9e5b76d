"""Who can never be served is told so, with what was asked and what there is."""

from typing import Any

import pytest

from raylora.cluster.capacity import (
    Demand,
    Node,
    amounts,
    demand_of,
    demand_of_sweep,
    require,
    room_for,
    totals,
    without,
)
from raylora.config.sweep_spec import SweepSpec
from raylora.config.workers_spec import WorkersSpec
from raylora.errors import ExitCode, InsufficientResources

LAPTOP = Node("127.0.0.2", {"CPU": 2.0, "memory": 8e9, "node:127.0.0.2": 1.0})
GPU_BOX = Node("10.0.0.1", {"CPU": 16.0, "GPU": 1.0})


@pytest.mark.parametrize(
    ("demand", "nodes"),
    [
        (Demand(2, {"CPU": 1}), [LAPTOP]),
        (Demand(4, {"CPU": 1}), [LAPTOP, LAPTOP]),
        (Demand(3, {"CPU": 0.1}), [Node("n", {"CPU": 0.3})]),
        (Demand(1, {"CPU": 8, "GPU": 1}), [LAPTOP, GPU_BOX]),
    ],
)
def test_what_fits_passes(demand: Demand, nodes: list[Node]) -> None:
    require(demand, nodes)


@pytest.mark.parametrize(
    ("demand", "nodes", "says"),
    [
        (
            Demand(3, {"CPU": 1}),
            [LAPTOP],
            "3 workers with 1 CPU each.*can hold 2.*127.0.0.2: 2 CPU",
        ),
        (Demand(1, {"CPU": 3}), [LAPTOP, LAPTOP], "1 worker with 3 CPU.*no node of it"),
        (Demand(2, {"CPU": 1, "GPU": 1}), [LAPTOP, GPU_BOX], "can hold 1"),
        (Demand(1, {"CPU": 1}), [], "no living node"),
    ],
    ids=["too many", "none fits a node", "GPUs", "no node"],
)
def test_what_can_never_fit_is_refused(demand: Demand, nodes: list[Node], says: str) -> None:
    with pytest.raises(InsufficientResources, match=says) as caught:
        require(demand, nodes)
    assert caught.value.exit_code == ExitCode.INVALID
    assert "workers.num_workers" in str(caught.value.hint)


def test_the_demand_of_a_spec_names_only_what_is_asked() -> None:
    asked = demand_of(WorkersSpec(num_workers=2, cpus_per_worker=1.5))
    assert asked == Demand(2, {"CPU": 1.5})
    assert demand_of(WorkersSpec(gpus_per_worker=1)).per_worker == {"CPU": 1, "GPU": 1}


def test_totals_leave_out_rays_node_markers() -> None:
    assert totals([LAPTOP, GPU_BOX]) == {"CPU": 18.0, "memory": 8e9, "GPU": 1.0}
    assert amounts(totals([LAPTOP])) == "2 CPU, 8.0 GB memory"


@pytest.mark.parametrize(
    ("search", "workers"),
    [
        ({}, 2),
        ({"at_once": 8}, 2),
        ({"at_once": 8, "trials_per_slot": 4}, 4),
        ({"at_once": 8, "trials": 3, "trials_per_slot": 1}, 6),
        ({"at_once": 3, "execution": "isolated"}, 6),
        ({"execution": "isolated"}, 2),
        ({"at_once": 8, "space": {"lora.use_dora": {"choice": [False, True]}}}, 4),
    ],
    ids=[
        "as many as there is room for",
        "all on one base",
        "on two bases",
        "no more than there are",
        "each its own",
        "one after the other",
        "some beside those that share",
    ],
)
def test_a_sweep_asks_for_the_workers_of_the_trials_at_once(
    search: dict[str, Any], workers: int
) -> None:
    spec = SweepSpec.model_validate({"workers": {"num_workers": 2}, "sweep": search})
    assert demand_of_sweep(spec).workers == workers


def test_more_trials_at_once_than_there_is_room_for_are_refused() -> None:
    search = {"at_once": 3, "execution": "isolated"}
    spec = SweepSpec.model_validate({"workers": {"num_workers": 1}, "sweep": search})
    with pytest.raises(InsufficientResources, match="3 workers.*can hold 2") as caught:
        require(demand_of_sweep(spec), [LAPTOP])
    assert "lower sweep.at_once" in str(caught.value.hint)


def test_what_is_left_of_nodes_is_what_a_demand_does_not_take() -> None:
    left = without(Demand(3, {"CPU": 1, "memory": 3e9}), [LAPTOP, Node("n", {"CPU": 4.0})])
    assert [node.resources["CPU"] for node in left] == [0, 4]
    assert left[0].resources["memory"] == 2e9
    assert room_for({"CPU": 1}, left) == 4
