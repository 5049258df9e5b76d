"""The engine against plain generation: same tokens, whatever shares the batch."""

import random
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch

from raylora.engine.generator import Engine, generate
from raylora.engine.request import Completion, FinishReason, Request
from raylora.engine.sampling import Sampling
from raylora.errors import InvalidRequest

LENGTHS = (1, 3, 10, 40, 150)
NEW_TOKENS = (1, 2, 5, 20, 60)


def request(
    name: str, prompt: Sequence[int], new: int = 20, adapter: str | None = None, **sampling
) -> Request:
    return Request(name, tuple(prompt), adapter, Sampling(max_new_tokens=new, **sampling))


def random_requests(count: int) -> list[Request]:
    draw = random.Random(7)
    return [
        request(
            f"r{i}",
            [draw.randrange(3, 259) for _ in range(draw.choice(LENGTHS))],
            draw.choice(NEW_TOKENS),
        )
        for i in range(count)
    ]


def plain_greedy(model, wanted: Request) -> list[int]:
    prompt = torch.tensor([wanted.prompt_ids])
    output = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=wanted.sampling.max_new_tokens,
        do_sample=False,
    )
    return output[0, prompt.shape[1] :].tolist()


def drain(engine: Engine) -> dict[str, Completion]:
    finished = {}
    while engine.has_work:
        for event in engine.step():
            if event.completion is not None:
                finished[event.id] = event.completion
    return finished


@pytest.fixture
def engine(small_llama, tiny_tokenizer, base_only) -> Engine:
    return Engine(small_llama, tiny_tokenizer, base_only, max_batch_size=6)


def test_rows_of_any_length_get_the_tokens_of_plain_generation(engine, small_llama):
    requests = random_requests(24)
    completions = generate(engine, requests)
    assert [list(c.token_ids) for c in completions] == [
        plain_greedy(small_llama, wanted) for wanted in requests
    ]


def test_rows_that_join_midway_change_nothing(engine, small_llama):
    requests = random_requests(12)
    finished = {}
    for wanted in requests:
        engine.add(wanted)
        for _ in range(3):
            for event in engine.step():
                if event.completion:
                    finished[event.id] = event.completion
    finished |= drain(engine)
    for wanted in requests:
        assert list(finished[wanted.id].token_ids) == plain_greedy(small_llama, wanted)


def test_pieces_join_to_the_text_and_the_text_is_the_decoded_tokens(engine, tiny_tokenizer):
    requests = random_requests(10)
    pieces: dict[str, str] = {}
    for wanted in requests:
        engine.add(wanted)
    finished = {}
    while engine.has_work:
        for event in engine.step():
            pieces[event.id] = pieces.get(event.id, "") + event.text
            if event.completion:
                finished[event.id] = event.completion
    for name, completion in finished.items():
        whole = tiny_tokenizer.decode(completion.token_ids, skip_special_tokens=True)
        assert pieces[name] == completion.text
        assert completion.text == whole.rstrip("\ufffd")


def test_an_end_token_ends_the_row(small_llama, tiny_tokenizer, base_only):
    wanted = request("a", [50, 60, 70], 20)
    third = plain_greedy(small_llama, wanted)[2]
    before = small_llama.generation_config.eos_token_id
    small_llama.generation_config.eos_token_id = [third, 2]
    try:
        engine = Engine(small_llama, tiny_tokenizer, base_only, max_batch_size=2)
    finally:
        small_llama.generation_config.eos_token_id = before
    [completion] = generate(engine, [wanted])
    assert completion.finish_reason is FinishReason.STOP
    assert completion.token_ids[-1] == third
    assert third not in completion.token_ids[:-1]


def test_a_stop_string_ends_the_text_before_it(engine):
    [free] = generate(engine, [request("a", [50, 60, 70], 30)])
    stop = free.text[4:7]
    [stopped] = generate(engine, [request("b", [50, 60, 70], 30, stop=(stop,))])
    assert stopped.finish_reason is FinishReason.STOP
    assert stopped.text == free.text[: free.text.index(stop)]


def test_the_context_length_ends_an_answer(small_llama, tiny_tokenizer, base_only):
    engine = Engine(small_llama, tiny_tokenizer, base_only, max_batch_size=2, max_length=16)
    [completion] = generate(engine, [request("a", range(10, 20), 100)])
    assert completion.finish_reason is FinishReason.LENGTH
    assert len(completion.token_ids) == 6


@pytest.mark.parametrize(("length", "said"), [(0, "empty"), (16, "16 tokens.* is 16")])
def test_a_prompt_that_cannot_fit_is_refused(small_llama, tiny_tokenizer, base_only, length, said):
    engine = Engine(small_llama, tiny_tokenizer, base_only, max_batch_size=2, max_length=16)
    with pytest.raises(InvalidRequest, match=said):
        engine.add(request("a", [9] * length))
    assert not engine.has_work


def test_a_cancelled_row_is_gone_at_the_next_step_and_the_others_stay_right(engine, small_llama):
    kept = request("kept", [5, 6, 7], 40)
    engine.add(request("gone", range(20, 60), 400))
    engine.add(kept)
    engine.step()
    engine.cancel("gone")
    ended = [event.completion for event in engine.step() if event.completion]
    assert [(c.id, c.finish_reason) for c in ended] == [("gone", FinishReason.CANCELLED)]
    assert engine.running == 1
    assert list(drain(engine)["kept"].token_ids) == plain_greedy(small_llama, kept)


def test_a_waiting_row_can_be_cancelled(small_llama, tiny_tokenizer, base_only):
    engine = Engine(small_llama, tiny_tokenizer, base_only, max_batch_size=1)
    engine.add(request("first", [5, 6], 3))
    engine.add(request("second", [5, 6], 3))
    engine.step()
    engine.cancel("second")
    finished = drain(engine)
    assert finished["second"].finish_reason is FinishReason.CANCELLED
    assert finished["first"].finish_reason is FinishReason.LENGTH


def test_a_row_that_fails_takes_no_other_with_it(engine, small_llama):
    good = request("good", [5, 6, 7], 10)
    bad = request("bad", [5, 6, 8], 10, adapter="no-such-adapter")
    by_id = {c.id: c for c in generate(engine, [good, bad])}
    assert by_id["bad"].finish_reason is FinishReason.ERROR
    assert "no-such-adapter" in by_id["bad"].error
    assert list(by_id["good"].token_ids) == plain_greedy(small_llama, good)


class FailingStep:
    """A bank whose third forward pass fails."""

    in_force = None

    def __init__(self) -> None:
        self.calls = 0

    def rows(self, keys: Sequence[str | None]) -> AbstractContextManager[object]:
        self.calls += 1
        if self.calls == 3:
            raise MemoryError("out of memory")
        return nullcontext()

    def stamp(self, key: str) -> str:
        return key


def test_a_failed_step_ends_its_rows_and_the_engine_goes_on(small_llama, tiny_tokenizer):
    engine = Engine(small_llama, tiny_tokenizer, FailingStep(), max_batch_size=4)
    completions = generate(engine, [request("a", [5, 6]), request("b", [7, 8])])
    assert {c.finish_reason for c in completions} == {FinishReason.ERROR}
    later = request("c", [9, 10])
    [completion] = generate(engine, [later])
    assert list(completion.token_ids) == plain_greedy(small_llama, later)


def test_a_row_of_nans_leaves_the_rows_beside_it_right(engine, small_llama):
    good = request("good", [5, 6, 7], 30)
    poisoned = request("poisoned", [200, 201], 30)
    embedding = small_llama.get_input_embeddings().weight
    before = embedding[200].clone()
    embedding[200] = float("nan")
    try:
        by_id = {c.id: c for c in generate(engine, [poisoned, good])}
    finally:
        embedding[200] = before
    assert by_id["poisoned"].finish_reason is FinishReason.ERROR
    assert list(by_id["good"].token_ids) == plain_greedy(small_llama, good)


def test_a_seed_gives_the_same_answer_alone_and_in_company(engine):
    wanted = request("a", [5, 6, 7], 20, temperature=1.0, top_p=0.9, seed=11)
    [alone] = generate(engine, [wanted])
    company = [request(f"x{i}", [i + 3] * (i + 1), 15, temperature=1.0) for i in range(4)]
    together = {c.id: c for c in generate(engine, [*company, wanted])}
    assert together["a"].token_ids == alone.token_ids
    [other] = generate(engine, [request("b", [5, 6, 7], 20, temperature=1.0, seed=12)])
    assert other.token_ids != alone.token_ids


@pytest.mark.parametrize(
    "wanted", [{"repetition_penalty": 1e-40}, {"logit_bias": ((5, float("nan")),)}], ids=str
)
def test_a_row_whose_token_cannot_be_chosen_ends_alone(engine, small_llama, wanted):
    good = request("good", [5, 6, 7], 10)
    bad = request("bad", [5, 6, 8], 10, temperature=1.0, **wanted)
    by_id = {c.id: c for c in generate(engine, [good, bad])}
    assert by_id["bad"].finish_reason is FinishReason.ERROR
    assert by_id["bad"].error
    assert list(by_id["good"].token_ids) == plain_greedy(small_llama, good)


def test_engines_made_one_after_another_leave_one_trace_on_the_model(
    small_llama, tiny_tokenizer, base_only
):
    for _ in range(3):
        Engine(small_llama, tiny_tokenizer, base_only, max_batch_size=2)
    assert len(small_llama.get_output_embeddings()._forward_pre_hooks) == 1


def test_an_answer_tells_when_its_prompt_was_taken_in(small_llama, tiny_tokenizer, base_only):
    engine = Engine(small_llama, tiny_tokenizer, base_only, max_batch_size=1)
    started = time.monotonic()
    first, second = generate(engine, [request("a", [5, 6]), request("b", [7])])
    assert first.begun is not None and second.begun is not None
    # The second waits for the only row.
    assert started <= first.begun < second.begun <= time.monotonic()
