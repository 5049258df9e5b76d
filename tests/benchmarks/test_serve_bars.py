"""What the bars of serving compute from what they measured."""

import asyncio
import time
from collections.abc import Sequence

import pytest
from benchmarks.bars.bar import Verdict
from benchmarks.serve.alias import Move, judge
from benchmarks.serve.generation import Cost
from benchmarks.serve.load import Reply, closed, opened, per_second, percentile, text_of
from benchmarks.serve.prompts import arrivals, spread

TEXTS = {1: "one", 2: "two"}


def reply(version: int, sent: float, text: str | None = None, status: int = 200) -> Reply:
    said = TEXTS[version] if text is None else text
    body = {"model": f"moved@{version}", "choices": [{"message": {"content": said}}]}
    return Reply(status, sent, sent + 0.5, body=body)


MOVES = [Move(1, 0, 0), Move(2, 10, 10.1)]


def test_an_answer_may_come_from_a_version_that_the_alias_left_lately():
    found = judge([reply(1, 9), reply(2, 11), reply(1, 12.1)], MOVES, TEXTS, 5)
    assert (found.failed, found.wrong) == (0, 0)
    assert found.late_s == pytest.approx(2)


def test_what_the_alias_has_left_for_longer_is_wrong():
    found = judge([reply(1, 16)], MOVES, TEXTS, 5)
    assert found.wrong == 1
    assert found.late_s == pytest.approx(5.9)


def test_a_version_before_its_move_is_wrong():
    assert judge([reply(2, 3)], MOVES, TEXTS, 5).wrong == 1


def test_another_versions_text_is_wrong_whatever_the_name_says():
    assert judge([reply(2, 11, "one")], MOVES, TEXTS, 5).wrong == 1


def test_failed_requests_are_counted():
    assert judge([reply(1, 1, status=503)], MOVES, TEXTS, 5).failed == 1


def test_a_version_that_is_back_in_turn_counts_by_its_latest_move():
    moves = [Move(1, 0, 0), Move(2, 10, 10), Move(1, 20, 20)]
    assert judge([reply(1, 21)], moves, TEXTS, 5).late_s == 0


def cost(shares: Sequence[float], added_s: Sequence[float]):
    return Cost(shares, added_s, bound_s=0.01).bar("a", 0.9)


def test_adapters_may_cost_their_share_or_their_bytes():
    assert cost([0.95, 0.94], [0.1, 0.1]).verdict is Verdict.OK
    by_bytes = cost([0.7, 0.7], [0.014, 0.012])
    assert by_bytes.verdict is Verdict.OK
    assert "0.70" in by_bytes.detail
    assert cost([0.7, 0.7], [0.02, 0.016]).verdict is Verdict.SHORT


def test_a_step_that_adapters_make_no_longer_is_ok():
    assert cost([0.89, 0.89], [-0.001, 0.0]).verdict is Verdict.OK


def test_lengths_lie_between_the_bounds_and_most_are_short():
    lengths = spread(400, 8, 256, seed=1)
    assert min(lengths) >= 8 and max(lengths) <= 256
    assert 30 < sorted(lengths)[200] < 70
    assert lengths == spread(400, 8, 256, seed=1)


def test_arrivals_keep_their_rate():
    moments = arrivals(2000, 10, seed=0)
    assert moments[0] == 0
    assert list(moments) == sorted(moments)
    assert 1900 / 10 < moments[-1] < 2100 / 10


def test_percentiles_are_values_that_occurred():
    values = [float(n) for n in range(1, 101)]
    assert percentile(values, 0.95) == 95
    assert percentile(values, 0.99) == 99
    assert percentile([3.0], 0.95) == 3
    assert percentile([1.0, 2.0], 0.5) == 1


def test_text_is_found_in_both_kinds_of_chunks():
    assert text_of({"choices": [{"text": "a"}]}) == "a"
    assert text_of({"choices": [{"delta": {"content": "b"}}]}) == "b"
    assert text_of({"choices": [{"delta": {}}]}) == ""
    assert text_of({"choices": []}) == ""


async def _answered(seconds: float) -> Reply:
    sent = time.monotonic()
    await asyncio.sleep(seconds)
    return Reply(200, sent, time.monotonic())


def test_a_closed_loop_waits_for_each_answer():
    replies = asyncio.run(closed(lambda _: _answered(0.05), workers=3, seconds=0.2))
    assert len(replies) % 3 == 0
    assert per_second(replies) <= 3 / 0.05


def test_an_open_loop_does_not_wait():
    started = time.monotonic()
    replies = asyncio.run(opened(lambda _: _answered(0.3), [0.0, 0.05, 0.1]))
    assert len(replies) == 3
    assert replies[2].sent - started < 0.3
