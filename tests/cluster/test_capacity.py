"""Who can never be served is told so, with what was asked and what there is."""

import pytest

from raylora.cluster.capacity import Demand, Node, amounts, demand_of, require, totals
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
