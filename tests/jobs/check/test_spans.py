from transformers import PreTrainedTokenizerFast

from raylora.jobs.check.spans import Span, spans
from raylora.jobs.data.examples import IGNORED, Example


def example(tokenizer: PreTrainedTokenizerFast, given: str, learnt: str) -> Example:
    start = tokenizer.encode(given, add_special_tokens=False)
    end = tokenizer.encode(learnt, add_special_tokens=False)
    return Example([*start, *end], [IGNORED] * len(start) + end)


def test_tells_learnt_tokens_from_given_ones(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    row = example(tiny_tokenizer, "<|im_start|>a", "Hi<|im_end|>")
    assert spans(tiny_tokenizer, row) == (
        Span(False, 2, ("<|im_start|>", "a")),
        Span(True, 3, ("H", "i", "<|im_end|>")),
    )


def test_tokens_of_one_character_are_one_text(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    (span,) = spans(tiny_tokenizer, example(tiny_tokenizer, "", "a\N{SNOWMAN}b\N{GRINNING FACE}"))
    assert span == Span(True, 9, ("a", "\N{SNOWMAN}", "b", "\N{GRINNING FACE}"))


def test_bytes_that_are_no_text_are_shown_all_the_same(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    (half, *_) = tiny_tokenizer.encode("\N{SNOWMAN}", add_special_tokens=False)
    (span,) = spans(tiny_tokenizer, Example([half] * 6, [IGNORED] * 6))
    assert span.count == 6
    assert "".join(span.tokens)
