"""How likely the model holds a token, and which others."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TokenLogprob:
    """Natural logarithms of the model's own probabilities: before temperature and penalties."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """The most likely tokens, from the most likely on."""


def token_logprob(logits: Tensor, token: int, top: int) -> TokenLogprob:
    """Of a token that logits of shape (vocabulary,) were given for, with `top` others."""
    found = logits.float().log_softmax(-1)
    values, tokens = found.topk(min(top, len(found)))
    others = zip(tokens.tolist(), values.tolist(), strict=True)
    return TokenLogprob(token, float(found[token]), tuple(others))
