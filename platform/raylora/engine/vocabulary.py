"""What single tokens are: a piece of text and the bytes it stands for, or the end of an answer."""

from functools import lru_cache
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

CACHED = 65_536
"""Tokens whose text is kept: the vocabulary of most models, 10 MB."""


class Vocabulary:
    """Of one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._byte_of = {char: byte for byte, char in bytes_to_unicode().items()}
        self.read = lru_cache(CACHED)(self._read)
        """(text, bytes) of a token. The text of a token that is no whole character is U+FFFD."""

    def _read(self, token: int) -> tuple[str, bytes]:
        text: str = self._tokenizer.decode([token], skip_special_tokens=False)
        if "\ufffd" not in text:
            return text, text.encode()
        return text, self._bytes(self._tokenizer.convert_ids_to_tokens(token))

    def _bytes(self, piece: str) -> bytes:
        """Of a piece that is no text by itself: SentencePiece writes <0xE2>, BPE stands-ins."""
        if piece.startswith("<0x") and piece.endswith(">"):
            return bytes([int(piece[3:-1], 16)])
        if all(char in self._byte_of for char in piece):
            return bytes(self._byte_of[char] for char in piece)
        return piece.encode()


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Ids that end an answer: the model's generation config's and the tokenizer's."""
    configured: int | list[int] | None = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in [*ids, tokenizer.eos_token_id] if i is not None)
