"""How likely tokens were, in the two shapes that OpenAI has for it."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from raylora.engine.logprobs import TokenLogprob
from raylora.engine.vocabulary import Vocabulary


def of_chat(found: Sequence[TokenLogprob], vocabulary: Vocabulary) -> dict[str, Any]:
    """Of a message, or a piece of one."""
    content = [
        {
            **_token(each.token, each.logprob, vocabulary),
            "top_logprobs": [_token(token, value, vocabulary) for token, value in each.top],
        }
        for each in found
    ]
    return {"content": content, "refusal": None}


def of_completion(
    found: Sequence[TokenLogprob], vocabulary: Vocabulary, offset: int
) -> dict[str, Any]:
    """Of a text, or a piece that begins `offset` characters into one."""
    texts = [vocabulary.read(each.token)[0] for each in found]
    ends = accumulate(map(len, texts), initial=offset)
    return {
        "tokens": texts,
        "token_logprobs": [each.logprob for each in found],
        "top_logprobs": [
            {vocabulary.read(token)[0]: value for token, value in each.top} for each in found
        ],
        "text_offset": list(ends)[:-1],
    }


def _token(token: int, logprob: float, vocabulary: Vocabulary) -> dict[str, Any]:
    text, its_bytes = vocabulary.read(token)
    return {"token": text, "logprob": logprob, "bytes": list(its_bytes)}
