"""The slots of a stack, over random batches and prompts."""

from hypothesis import given
from hypothesis import strategies as st

from raylora.lora.bank.slots import SlotTable

KEYS = [f"a{i}" for i in range(12)]
Batches = st.lists(
    st.tuples(st.booleans(), st.lists(st.sampled_from(KEYS), min_size=1, max_size=9, unique=True)),
    max_size=40,
)


@given(Batches)
def test_slots_hold_what_was_copied_and_a_batch_lies_close_together(batches) -> None:
    table = SlotTable()
    held: dict[int, str] = {}
    batch: list[str] = []
    for together, keys in batches:
        if together:
            copied, batch = table.place_together(keys), keys
        else:
            before = {key: table[key] for key in batch if key in table}
            copied = table.place(keys)
            assert {key: table[key] for key in before} == before
        held.update((table[key], key) for key in copied)
        assert all(held[table[key]] == key for key in keys)
        assert len({table[key] for key in keys}) == len(keys)
        if together:
            window = table.window(keys)
            assert window.stop <= table.capacity
            assert len(window) <= len(keys) + len(keys) // 4


def test_a_repeated_composition_copies_nothing() -> None:
    table = SlotTable()
    assert table.place_together(["a", "b"]) == ["a", "b"]
    version = table.version
    assert table.place_together(["b", "a"]) == []
    assert table.version == version


def test_one_adapter_for_another_copies_one() -> None:
    table = SlotTable()
    table.place_together(list("abcd"))
    assert table.place_together(list("abde")) == ["e"]
    assert table.window(list("abde")) in (range(4), range(5))


def test_an_adapter_that_left_is_still_there_until_its_slot_is_wanted() -> None:
    table = SlotTable()
    table.place_together(["a", "b"])
    assert table.place_together(["a"]) == []
    assert table.place_together(["a", "b"]) == []


def test_prompts_take_free_slots_and_then_those_used_longest_ago() -> None:
    table = SlotTable()
    table.place_together(["a"])
    assert table.place(["b"]) == ["b"]
    assert table.place(["c"]) == ["c"]
    assert table.place(["d"]) == ["d"]
    assert table.capacity == 4
    table.place(["b"])
    assert table.place(["e"]) == ["e"]
    assert "c" not in table
    assert "a" in table


def test_a_forgotten_key_is_copied_anew() -> None:
    table = SlotTable()
    table.place_together(["a"])
    table.forget("a")
    assert table.place_together(["a"]) == ["a"]
