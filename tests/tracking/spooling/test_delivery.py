"""From a spool to the store, with everything on the way killed now and then."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.tracking.fake_store import FakeStore, Killed

from raylora.errors import Unreachable
from raylora.tracking.run import RunStatus
from raylora.tracking.spooling import spool
from raylora.tracking.spooling.delivery import LOST_TAG, THINNED_TAG, Delivery
from raylora.tracking.spooling.records import (
    Artifacts,
    Content,
    DatasetUsed,
    Metrics,
    Params,
    Registration,
    Status,
    Tags,
    encode,
)
from raylora.tracking.spooling.spool import Role, SpoolWriter, segments
from raylora.tracking.spooling.spool_state import STATE, read_state

MANY = 1 << 30


def metrics(step: int, **values: float) -> Metrics:
    return Metrics(values or {"loss": 1.0}, step, 1_000 + step)


def writer(folder: Path, role: Role = Role.WORKER) -> SpoolWriter:
    return SpoolWriter(folder, role)


def deliver_all(folder: Path, store: FakeStore, limit: int = MANY) -> Delivery:
    """To the end, by as many processes as it takes."""
    while True:
        delivery = Delivery(folder, store.open, limit)
        try:
            while delivery.deliver():
                pass
        except Killed:
            continue
        return delivery


def test_all_kinds_of_records_arrive(tmp_path: Path) -> None:
    folder, store = tmp_path / "run" / "tracking", FakeStore()
    files = tmp_path / "run" / "metadata"
    files.mkdir(parents=True)
    (files / "data.json").write_text("{}")
    driver = writer(folder, Role.DRIVER)
    for record in (
        Status(RunStatus.RUNNING, 1),
        Params({"lora.r": "8"}),
        Tags({"git": "abc"}),
        Content({"a": 1}, "spec.yaml"),
        DatasetUsed("home", "bundled:home", "d", 6, "training"),
        Artifacts("metadata", "metadata"),
    ):
        driver.append(record)
    worker = writer(folder)
    worker.append(metrics(1, loss=0.5, grad_norm=float("nan")))
    driver.append(Registration("home", "metadata", "d", {}, None))
    driver.append(Status(RunStatus.FINISHED, 2))
    delivery = deliver_all(folder, store)

    assert store.params == {"lora.r": "8"} and store.tags == {"git": "abc"}
    assert store.files == ["spec.yaml", "metadata/data.json"] and store.datasets == ["home"]
    assert [(p.key, p.step, p.time_ms) for p in store.points] == [
        ("loss", 1, 1_001),
        ("grad_norm", 1, 1_001),
    ]
    assert store.statuses == [RunStatus.RUNNING, RunStatus.FINISHED]
    assert delivery.over
    state = read_state(folder)
    assert (state.mlflow_run_id, state.adapter, state.points) == ("m1", "home@1", 2)


def test_a_driver_s_end_waits_for_the_workers_points_and_its_parameters_do_not(tmp_path) -> None:
    store = FakeStore()
    driver, worker = writer(tmp_path, Role.DRIVER), writer(tmp_path)
    driver.append(Params({"seed": "0"}))
    driver.append(metrics(3, loss=9.0))
    driver.append(Status(RunStatus.FINISHED, 1))
    for step in (1, 2, 3):
        worker.append(metrics(step))
    delivery = Delivery(tmp_path, store.open, MANY)
    assert delivery.deliver() and store.params
    deliver_all(tmp_path, store)
    assert [p.value for p in store.points] == [1.0, 1.0, 1.0]
    assert store.statuses == [RunStatus.FINISHED]


def test_few_requests(tmp_path: Path) -> None:
    store, worker = FakeStore(), writer(tmp_path)
    for step in range(1, 501):
        worker.append(metrics(step, loss=1.0, lr=0.1))
    deliver_all(tmp_path, store)
    assert store.steps("loss") == store.steps("lr") == list(range(1, 501))
    assert store.requests <= 2


def test_an_outage_delays_and_loses_nothing(tmp_path: Path) -> None:
    store, worker = FakeStore(), writer(tmp_path)
    store.away = True
    delivery = Delivery(tmp_path, store.open, MANY)
    for step in range(1, 11):
        worker.append(metrics(step))
        with pytest.raises(Unreachable):
            delivery.deliver()
    store.away = False
    assert delivery.deliver()
    store.away = True
    worker.append(metrics(11))
    with pytest.raises(Unreachable):
        delivery.deliver()
    store.away = False
    while delivery.deliver():
        pass
    assert store.steps("loss") == list(range(1, 12))


def test_only_the_points_at_fault_are_refused_and_the_end_tells(tmp_path: Path) -> None:
    store, worker, driver = FakeStore(), writer(tmp_path), writer(tmp_path, Role.DRIVER)
    store.refused_keys = {"*"}
    for step in range(1, 41):
        worker.append(metrics(step, **({"loss": 1.0, "*": 1.0} if step == 7 else {"loss": 1.0})))
    driver.append(Status(RunStatus.FINISHED, 1))
    delivery = deliver_all(tmp_path, store)
    assert store.steps("loss") == list(range(1, 41))
    assert delivery.state.lost == 1 and delivery.state.refusals == ("bad key",)
    assert store.tags == {LOST_TAG: 1}


def test_a_refused_registration_is_told_and_the_run_still_ends(tmp_path: Path) -> None:
    store, driver = FakeStore(), writer(tmp_path, Role.DRIVER)
    driver.append(Registration("refuse-me", "adapter", "d", {}, None))
    driver.append(Status(RunStatus.FAILED, 1))
    delivery = deliver_all(tmp_path, store)
    assert str(delivery.refused) == "not this name"
    assert store.statuses == [RunStatus.FAILED]


def test_a_file_that_is_gone_is_named_and_passed_over(tmp_path: Path) -> None:
    store, driver = FakeStore(), writer(tmp_path / "run", Role.DRIVER)
    driver.append(Artifacts("nowhere", "x"))
    driver.append(Tags({"a": "1"}))
    delivery = deliver_all(tmp_path / "run", store)
    assert store.tags == {"a": "1"}
    assert "cannot be read" in delivery.state.refusals[0]


def test_half_a_line_and_damage_cost_nothing_else(tmp_path: Path) -> None:
    store, worker = FakeStore(), writer(tmp_path)
    worker.append(metrics(1))
    (segment,) = segments(tmp_path)
    with segment.path.open("ab") as file:
        file.write(b"no json\n" + b'{"kind":"metrics","val')
    deliver_all(tmp_path, store)
    again = writer(tmp_path)
    again.append(metrics(2))
    delivery = deliver_all(tmp_path, store)
    assert store.steps("loss") == [1, 2]
    assert delivery.state.lost == 1
    assert not delivery.waiting


def test_what_was_sent_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "SEGMENT_BYTES", 500)
    store, worker = FakeStore(), writer(tmp_path)
    for step in range(1, 101):
        worker.append(metrics(step))
    assert len(segments(tmp_path)) > 5
    delivery = deliver_all(tmp_path, store)
    assert len(segments(tmp_path)) <= 1
    assert store.steps("loss") == list(range(1, 101))
    assert len(delivery.state.offsets) <= 1


def test_a_file_begun_while_a_run_that_is_over_is_tidied_up_is_kept(tmp_path: Path) -> None:
    store = FakeStore()
    ended = writer(tmp_path, Role.DRIVER)
    ended.append(Status(RunStatus.KILLED, 1))
    ended.close()
    delivery = deliver_all(tmp_path, store)
    resumed = tmp_path / "driver-99999999999999999999-1-abcd.000000.jsonl"
    with resumed.open("ab") as file:  # by a driver that resumes the run, and has not written yet
        assert delivery.over
        delivery.tidy_up()
        file.write(encode(Status(RunStatus.RUNNING, 2)))
    assert [segment.path for segment in segments(tmp_path)] == [resumed]
    deliver_all(tmp_path, store)
    assert store.statuses == [RunStatus.KILLED, RunStatus.RUNNING]


def test_the_disk_holds_no_more_than_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "SEGMENT_BYTES", 10_000)
    limit = 60_000
    store, worker = FakeStore(), writer(tmp_path)
    store.away = True
    delivery = Delivery(tmp_path, store.open, limit)
    for step in range(1, 3_001):
        worker.append(metrics(step, **{"loss": 1.0} | ({"rare": 2.0} if step % 100 == 0 else {})))
        if step % 100 == 0:
            delivery.keep_within_limit()
            assert sum(s.bytes for s in segments(tmp_path)) <= limit + 10_000
    writer(tmp_path, Role.DRIVER).append(Status(RunStatus.FINISHED, 1))
    store.away = False
    while delivery.deliver():
        pass
    steps = store.steps("loss")
    assert steps[0] == 1 and steps[-1] == 3_000 and steps == sorted(set(steps))
    assert store.steps("rare") == list(range(100, 3_001, 100))
    assert store.tags == {THINNED_TAG: 3_000 - len(steps)}
    # Evenly: the old ones are not given up for the new ones.
    assert max(b - a for a, b in zip(steps, steps[1:], strict=False)) <= 16


def test_a_state_that_is_damaged_sends_all_again_and_none_twice(tmp_path: Path) -> None:
    store, worker = FakeStore(), writer(tmp_path)
    for step in (1, 2, 3):
        worker.append(metrics(step))
    deliver_all(tmp_path, store)
    (tmp_path / STATE).write_text("{", encoding="utf-8")
    worker.append(metrics(4))
    deliver_all(tmp_path, store)
    assert store.steps("loss") == [1, 2, 3, 4]


Attempt = st.tuples(st.integers(0, 8), st.integers(1, 12), st.integers(0, 40))
"""Of a worker: steps redone, steps done, bytes of half a line where it is killed."""


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    attempts=st.lists(Attempt, min_size=1, max_size=5),
    kills_before=st.sets(st.integers(1, 40), max_size=8),
    kills_after=st.sets(st.integers(1, 40), max_size=8),
    segment_bytes=st.sampled_from([60, 300, 5_000]),
    interleaved=st.booleans(),
)
def test_killed_anywhere_no_point_is_lost_and_none_comes_twice(
    tmp_path_factory: pytest.TempPathFactory,
    attempts: list[tuple[int, int, int]],
    kills_before: set[int],
    kills_after: set[int],
    segment_bytes: int,
    interleaved: bool,
) -> None:
    folder, store = tmp_path_factory.mktemp("spool"), FakeStore()
    store.kill_before, store.kill_after = kills_before, kills_after
    driver = writer(folder, Role.DRIVER)
    driver.append(Params({"seed": "0"}))
    first_value: dict[int, float] = {}
    step = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "SEGMENT_BYTES", segment_bytes)
        for number, (redone, done, torn) in enumerate(attempts):
            worker = writer(folder)
            step = max(0, step - redone)
            for _ in range(redone + done):
                step += 1
                first_value.setdefault(step, float(number))
                worker.append(metrics(step, loss=float(number)))
            if torn:
                half = json.dumps({"kind": "metrics", "values": {"loss": 1.0}, "step": step + 1})
                begun = [s for s in segments(folder) if s.role is Role.WORKER]
                with begun[-1].path.open("ab") as file:
                    file.write(half[:torn].encode())
            if interleaved:
                deliver_all(folder, store)
    driver.append(metrics(step, loss=99.0, final_loss=1.0))
    driver.append(Status(RunStatus.FINISHED, 1))
    delivery = deliver_all(folder, store)

    assert {p.step: p.value for p in store.points if p.key == "loss"} == first_value
    assert store.steps("loss") == sorted(first_value)
    assert store.steps("final_loss") == [step]
    assert store.params == {"seed": "0"}
    assert store.statuses[-1] is RunStatus.FINISHED
    assert delivery.over and delivery.state.lost == 0
