"""The slots of the running batch, over random compositions."""

import random

from raylora.lora.slots import SlotTable


def check(table: SlotTable, ranks: dict[str, int]) -> None:
    slots = sorted((table[key] for key in ranks), key=lambda slot: slot.start)
    assert all(len(table[key]) == rank for key, rank in ranks.items())
    assert all(a.stop <= b.start for a, b in zip(slots, slots[1:], strict=False))
    assert table.extent(ranks) == max(slot.stop for slot in slots) <= table.capacity


def test_a_repeated_composition_copies_nothing() -> None:
    table = SlotTable()
    assert table.place({"a": 16, "b": 8}) == ["a", "b"]
    version = table.version
    assert table.place({"b": 8, "a": 16}) == []
    assert table.version == version


def test_one_adapter_for_another_copies_one_into_its_place() -> None:
    table = SlotTable()
    table.place({key: 16 for key in "abcd"})
    assert table.place({key: 16 for key in "abde"}) == ["e"]
    assert table["e"] == range(32, 48)
    assert table.extent({key: 16 for key in "abde"}) == 64


def test_an_adapter_that_left_is_still_there_until_its_rows_are_wanted() -> None:
    table = SlotTable()
    table.place({"a": 16, "b": 16})
    assert table.place({"a": 16}) == []
    assert table.place({"a": 16, "b": 16}) == []


def test_a_batch_that_shrank_is_packed() -> None:
    table = SlotTable()
    table.place({key: 16 for key in "abcd"})
    assert table.place({"d": 16}) == ["d"]
    assert table.extent({"d": 16}) == 16


def test_a_forgotten_key_is_copied_anew() -> None:
    table = SlotTable()
    table.place({"a": 4})
    table.forget("a")
    assert table.place({"a": 8}) == ["a"]
    check(table, {"a": 8})


def test_slots_never_overlap_and_hold_what_was_copied() -> None:
    generator = random.Random(0)
    ranks = {f"a{i}": generator.choice([1, 4, 8, 16, 64]) for i in range(40)}
    table = SlotTable()
    rows: dict[int, str] = {}
    for _ in range(500):
        chosen = generator.sample(sorted(ranks), generator.randint(1, 16))
        wanted = {key: ranks[key] for key in chosen}
        for key in table.place(wanted):
            rows.update(dict.fromkeys(table[key], key))
        check(table, wanted)
        assert all(rows[row] == key for key in wanted for row in table[key])
        assert table.extent(wanted) <= 2 * sum(wanted.values())
