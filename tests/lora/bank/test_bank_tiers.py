"""What the bank takes in, what it refuses, and what leaves to make room."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.lora.bank.banked import PROMPTS, WEIGHTS, bank_of, generate, with_bank

from raylora.errors import InvalidAdapter, NotFound, RayloraError
from raylora.lora.bank.bank import Bank
from raylora.lora.bank.eviction import Tier


def bytes_of(model: Any, directory: Path) -> int:
    """Of host memory."""
    bank = bank_of(model, {"a": directory})
    bank.close()
    return bank.bytes


def test_a_bad_adapter_leaves_the_bank_as_it_was(tiny_model, adapters) -> None:
    bank = bank_of(tiny_model, {"a": adapters["a"]})
    size = bank.bytes
    content = bytearray((adapters["b"] / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (adapters["b"] / WEIGHTS).write_bytes(content)
    with pytest.raises(InvalidAdapter, match="sha256"):
        bank.add("b", adapters["b"])
    assert bank.keys == ("a",)
    assert bank.bytes == size


def test_limits_and_wrong_bases_are_refused(tiny_model, adapters) -> None:
    bank = bank_of(tiny_model, {"a": adapters["a"]}, max_adapters=2, max_r=8)
    with pytest.raises(InvalidAdapter, match="rank 16 is over the limit of 8"):
        bank.add("b", adapters["b"])
    with pytest.raises(InvalidAdapter, match="a is loaded already"):
        bank.add("a", adapters["a"])
    bank.add("c", adapters["c"])
    with pytest.raises(InvalidAdapter, match="full with 2 adapters"):
        bank.add("d", adapters["d"])
    other = Bank(tiny_model, base_revision="rev-2")
    with pytest.raises(InvalidAdapter, match="trained on tiny at rev-1"):
        other.add("a", adapters["a"])


def test_unknown_keys_name_those_that_are_loaded(tiny_model, adapters) -> None:
    bank = bank_of(tiny_model, {"a": adapters["a"]})
    with pytest.raises(NotFound, match="adapter x is not loaded") as caught, bank.rows(["a", "x"]):
        pass
    assert caught.value.hint == "loaded: a"
    with pytest.raises(NotFound):
        bank.remove("x")


def test_an_adapter_in_use_is_not_removed(tiny_model, adapters) -> None:
    bank = bank_of(tiny_model, {"a": adapters["a"], "b": adapters["b"]})
    with bank.rows(["a"]):
        with pytest.raises(RayloraError, match="a is in use"):
            bank.remove("a")
        bank.remove("b")
    bank.pin("a")
    with pytest.raises(RayloraError, match="a is in use"):
        bank.remove("a")
    bank.unpin("a")
    bank.remove("a")
    assert bank.keys == ()
    assert bank.bytes == 0


def test_a_key_can_come_back_with_other_tensors(tiny_model, adapters) -> None:
    bank = bank_of(tiny_model, adapters)
    expected = generate(with_bank(tiny_model, bank, ["b"] * 7), PROMPTS)[1]
    generate(with_bank(tiny_model, bank, ["a"] * 7), PROMPTS)
    bank.remove("a")
    bank.add("a", adapters["b"])
    again = generate(with_bank(tiny_model, bank, ["a"] * 7), PROMPTS)[1]
    torch.testing.assert_close(again, expected, rtol=0, atol=1e-6)


def test_bytes_are_those_of_the_tensors(tiny_model, adapters, make_adapter) -> None:
    bank = bank_of(tiny_model, {"b": adapters["b"]})
    stored = load_file(adapters["b"] / WEIGHTS).values()
    assert bank.bytes == sum(tensor.nbytes for tensor in stored)
    ranks = [bytes_of(tiny_model, make_adapter(f"rank {r}", r=r)) for r in (5, 8)]
    assert ranks[0] == ranks[1]


def test_adapters_used_longest_ago_make_room_and_come_back_from_disk(tiny_model, adapters) -> None:
    room = bytes_of(tiny_model, adapters["b"])
    bank = bank_of(tiny_model, {"b": adapters["b"]}, max_bytes=2 * room)
    wanted = generate(with_bank(tiny_model, bank, ["b"] * 7), PROMPTS)[1]
    bank.add("b2", adapters["b"])
    assert (bank.tier("b"), bank.tier("b2")) == (Tier.DEVICE, Tier.HOST)
    generate(with_bank(tiny_model, bank, ["b2"] * 7), PROMPTS)
    bank.add("b3", adapters["b"])
    assert (bank.tier("b"), bank.keys) == (Tier.DISK, ("b2", "b3"))
    with pytest.raises(NotFound, match="b is not loaded"), bank.rows(["b"]):
        pass
    assert bank.reload("b") == ["b2"]
    assert bank.bytes <= 2 * room
    again = generate(with_bank(tiny_model, bank, ["b"] * 7), PROMPTS)[1]
    assert torch.equal(again, wanted)
    bank.remove("b2")
    with pytest.raises(NotFound):
        bank.tier("b2")


def test_a_batch_that_was_served_before_counts_as_a_use(tiny_model, adapters) -> None:
    room = bytes_of(tiny_model, adapters["b"])
    bank = bank_of(tiny_model, dict.fromkeys(("b", "b2"), adapters["b"]), max_bytes=2 * room)
    for key in ("b", "b2", "b"):
        with bank.rows([key]):
            pass
    bank.add("b3", adapters["b"])
    assert bank.keys == ("b", "b3")


def test_the_last_adapter_of_a_layout_takes_its_slots_with_it(tiny_model, make_adapter) -> None:
    bank = bank_of(tiny_model, {f"r{r}": make_adapter(f"r{r}", r=r) for r in (8, 16, 32)})
    for key in bank.keys:
        generate(with_bank(tiny_model, bank, [key] * 7), PROMPTS)
    full = bank.device_bytes
    bank.remove("r32")
    assert 0 < bank.device_bytes < full
    for key in bank.keys:
        bank.remove(key)
    assert bank.device_bytes == 0


def test_what_is_pinned_or_in_use_stays_and_a_bad_adapter_moves_nothing(
    tiny_model, adapters
) -> None:
    room = bytes_of(tiny_model, adapters["b"])
    bank = bank_of(tiny_model, {"b": adapters["b"]}, max_bytes=room)
    bank.pin("b")
    with pytest.raises(RayloraError, match=f"{room} are in use"):
        bank.add("a", adapters["a"])
    bank.unpin("b")
    with bank.rows(["b"]), pytest.raises(RayloraError, match="in use"):
        bank.add("a", adapters["a"])
    (adapters["a"] / WEIGHTS).write_bytes(b"no adapter")
    with pytest.raises(InvalidAdapter):
        bank.add("a", adapters["a"])
    assert bank.keys == ("b",)
    bank.add("c", adapters["c"])
    assert bank.keys == ("c",)


def test_a_load_is_prepared_beside_a_running_batch(tiny_model, adapters) -> None:
    bank = bank_of(tiny_model, {"a": adapters["a"]})
    with bank.rows(["a"]), ThreadPoolExecutor(1) as elsewhere:
        prepared = elsewhere.submit(bank.prepare, adapters["b"]).result()
        tiny_model(PROMPTS[:1])
    assert bank.admit("b", prepared) == []
    assert bank.keys == ("a", "b")
    with pytest.raises(InvalidAdapter, match="b is loaded already"):
        bank.admit("b", prepared)
