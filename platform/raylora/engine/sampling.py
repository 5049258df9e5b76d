"""What a request asks of the choice of its tokens."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sampling:
    """What one request asks for. temperature 0 is greedy; top_k 0 keeps every token."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    """Same seed, prompt and adapter give the same tokens, whatever else is in the batch."""
    stop: tuple[str, ...] = ()
    """Generation ends before the first of these; the string itself is not part of the text."""
    min_p: float = 0.0
    """Tokens less likely than this share of the most likely one are not drawn."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Added to the logits of tokens."""
    logprobs: int | None = None
    """Tells of each token how likely it was, and of so many others; None does not."""
    grammar: str | None = None
    """The answer is one of it: see grammar_of."""
