"""What leaves a tier to make room."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylora.errors import RayloraError
from raylora.lora.bank.eviction import Held, victims

Helds = st.lists(st.tuples(st.integers(1, 100), st.booleans()), max_size=20).map(
    lambda pairs: [Held(f"a{i}", size, busy) for i, (size, busy) in enumerate(pairs)]
)


@given(Helds, st.integers(0, 200), st.integers(0, 500))
def test_as_few_leave_as_fit_the_oldest_first_and_none_that_is_in_use(
    held, wanted, budget
) -> None:
    sizes = {one.key: one.bytes for one in held}
    idle = [one.key for one in held if not one.in_use]
    try:
        leaving = victims(held, wanted, budget)
    except RayloraError:
        busy = sum(one.bytes for one in held if one.in_use)
        assert busy + wanted > budget
        return
    left = sum(sizes.values()) - sum(sizes[key] for key in leaving)
    assert left + wanted <= budget
    assert leaving == idle[: len(leaving)]
    assert not leaving or left + sizes[leaving[-1]] + wanted > budget


def test_without_a_budget_nothing_leaves() -> None:
    assert victims([Held("a", 10)], 1 << 60, None) == []


def test_what_is_in_use_is_named_in_bytes() -> None:
    with pytest.raises(RayloraError, match="20 bytes does not fit into 30 bytes.* 15 are in use"):
        victims([Held("a", 15, in_use=True), Held("b", 15)], 20, 30)
