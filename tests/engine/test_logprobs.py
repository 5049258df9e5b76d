"""How likely tokens were, and what they read as."""

import torch

from raylora.engine.generator import Engine, generate
from raylora.engine.logprobs import token_logprob
from raylora.engine.request import Request
from raylora.engine.sampling import Sampling
from raylora.engine.vocabulary import Vocabulary


def test_logprobs_are_of_the_softmax_with_the_most_likely_first():
    found = token_logprob(torch.log(torch.tensor([0.2, 0.5, 0.3])), 0, top=2)
    assert found.token == 0
    assert torch.allclose(torch.tensor(found.logprob).exp(), torch.tensor(0.2))
    assert [token for token, _ in found.top] == [1, 2]
    assert len(token_logprob(torch.zeros(3), 0, top=20).top) == 3


def test_the_engine_tells_what_the_model_holds_of_each_token(
    small_llama, tiny_tokenizer, base_only
):
    engine = Engine(small_llama, tiny_tokenizer, base_only, max_batch_size=4)
    prompt = (5, 9, 33)
    told = Sampling(max_new_tokens=12, temperature=1.5, seed=3, presence_penalty=0.7, logprobs=3)
    silent = Sampling(max_new_tokens=12)
    asked, other = generate(
        engine, [Request("a", prompt, None, told), Request("b", prompt, None, silent)]
    )
    assert other.logprobs == ()
    tokens = [each.token for each in asked.logprobs]
    assert tokens == [t for t in asked.token_ids if t != tiny_tokenizer.eos_token_id]
    with torch.inference_mode():
        logits = small_llama(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 :]
    wanted = logits.log_softmax(-1)
    for at, each in enumerate(asked.logprobs):
        assert abs(each.logprob - float(wanted[at, each.token])) < 1e-4
        assert each.top[0][0] == int(wanted[at].argmax())


def test_events_tell_of_each_token_once(small_llama, tiny_tokenizer, base_only):
    engine = Engine(small_llama, tiny_tokenizer, base_only, max_batch_size=4)
    engine.add(Request("a", (5, 9, 33), None, Sampling(max_new_tokens=30, logprobs=0)))
    events = []
    while engine.has_work:
        events += engine.step()
    told = tuple(each for event in events for each in event.logprobs)
    assert told == events[-1].completion.logprobs
    assert len(told) >= 1


def test_a_penalty_changes_its_own_row_alone(small_llama, tiny_tokenizer, base_only):
    plain = Request("plain", (5, 9, 33), None, Sampling(max_new_tokens=30))
    other = Request("other", (5, 9, 33), None, Sampling(max_new_tokens=30, frequency_penalty=2.0))

    def answers(*requests: Request) -> list[tuple[int, ...]]:
        engine = Engine(small_llama, tiny_tokenizer, base_only, max_batch_size=4)
        return [found.token_ids for found in generate(engine, requests)]

    together = answers(plain, other)
    assert together == [*answers(plain), *answers(other)]
    assert together[0] != together[1]


def test_tokens_read_as_text_and_bytes(tiny_tokenizer):
    vocabulary = Vocabulary(tiny_tokenizer)
    ids = tiny_tokenizer.encode("a\u00e9")
    assert vocabulary.read(ids[0]) == ("a", b"a")
    # A vocabulary of single bytes: neither half of the letter is a character.
    read = [vocabulary.read(token) for token in ids[1:]]
    assert [text for text, _ in read] == ["\ufffd", "\ufffd"]
    assert b"".join(its_bytes for _, its_bytes in read) == "\u00e9".encode()
