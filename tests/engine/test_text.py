"""Text of a growing row: whole characters, and nothing of a stop string."""

import pytest

from raylora.engine.text import TextStream

SENTENCE = "Gr\u00fc\u00dfe \U0001f600 \u65e5\u672c\u8a9e done"


def pieces(tokenizer, text: str, stop: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    stream = TextStream(tokenizer, stop)
    told = []
    for token in tokenizer.encode(text, add_special_tokens=False):
        told.append(stream.push(token))
        if stream.stopped:
            return told, True
    told.append(stream.finish())
    return told, stream.stopped


def test_characters_of_many_tokens_come_out_whole(tiny_tokenizer):
    told, _ = pieces(tiny_tokenizer, SENTENCE)
    assert "".join(told) == SENTENCE
    assert not any("\ufffd" in piece for piece in told)


def test_a_character_that_never_ends_is_left_out(tiny_tokenizer):
    stream = TextStream(tiny_tokenizer)
    tokens = tiny_tokenizer.encode("a\U0001f600", add_special_tokens=False)
    told = "".join(stream.push(token) for token in tokens[:-1]) + stream.finish()
    assert told == "a"


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        (("done",), "Gr\u00fc\u00dfe \U0001f600 \u65e5\u672c\u8a9e "),
        (("done", "\u672c\u8a9e"), "Gr\u00fc\u00dfe \U0001f600 \u65e5"),
        (("never",), SENTENCE),
        (("done!",), SENTENCE),
    ],
)
def test_text_ends_before_the_first_stop_string(tiny_tokenizer, stop, expected):
    told, stopped = pieces(tiny_tokenizer, SENTENCE, stop)
    assert "".join(told) == expected
    assert stopped == (expected != SENTENCE)


def test_no_beginning_of_a_stop_string_is_passed_on_early(tiny_tokenizer):
    told, stopped = pieces(tiny_tokenizer, "one END two", ("END",))
    assert stopped
    assert all("E" not in piece for piece in told)


def test_a_repeated_beginning_still_finds_the_stop_string(tiny_tokenizer):
    told, stopped = pieces(tiny_tokenizer, "aaab", ("aab",))
    assert stopped
    assert "".join(told) == "a"
