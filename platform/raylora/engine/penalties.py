"""What a request adds to logits, or takes from them, before a token is chosen."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from raylora.engine.sampling import Sampling


class Penalties:
    """Of one row: they depend on the tokens that it has so far."""

    def __init__(self, sampling: Sampling, prompt_ids: Sequence[int]) -> None:
        self._sampling = sampling
        repeats = sampling.repetition_penalty != 1
        self._prompt = frozenset(prompt_ids if repeats else ())
        self._counts = Counter[int]()

    @property
    def change_nothing(self) -> bool:
        """Whether logits stay as they are, whatever is generated."""
        s = self._sampling
        neutral = s.presence_penalty == s.frequency_penalty == 0 and s.repetition_penalty == 1
        return neutral and not s.logit_bias

    def on(self, logits: Tensor) -> Tensor:
        """Logits of shape (vocabulary,) as they are to be chosen from.

        Presence, frequency and bias as in OpenAI's API reference, over generated tokens; the
        repetition penalty of Keskar et al. (2019), over those of the prompt too.
        """
        if self.change_nothing:
            return logits
        s, changed = self._sampling, logits.float().clone()
        if s.repetition_penalty != 1:
            seen = torch.tensor(
                sorted(self._prompt | self._counts.keys()), dtype=torch.long, device=logits.device
            )
            before = changed[seen]
            less = torch.where(before > 0, 1 / s.repetition_penalty, s.repetition_penalty)
            changed[seen] = before * less
        if self._counts:
            tokens = torch.tensor(list(self._counts), device=logits.device)
            times = torch.tensor(list(self._counts.values()), device=logits.device)
            changed[tokens] -= s.presence_penalty + s.frequency_penalty * times
        for token, bias in s.logit_bias:
            changed[token] += bias
        return changed

    def note(self, token: int) -> None:
        """Take in a token that was generated."""
        self._counts[token] += 1
