"""How the next token is chosen from a row of logits."""

import math
from collections.abc import Sequence

import torch

from raylora.engine.grammar import Constraint
from raylora.engine.penalties import Penalties
from raylora.engine.sampling import Sampling

NUCLEUS_CANDIDATES = 512
"""Candidates sorted first for top_p; the whole vocabulary only where they hold too little mass."""
LEAST_TEMPERATURE = 1e-5
"""Below it the best token is certain, and a division by it may leave what fp32 can hold."""


class Sampler:
    """One request's choice of tokens, with random numbers of its own."""

    def __init__(
        self,
        sampling: Sampling,
        prompt_ids: Sequence[int] = (),
        constraint: Constraint | None = None,
    ) -> None:
        """`constraint` is the grammar that the sampling names, at its beginning."""
        self._sampling = sampling
        self._constraint = constraint
        self._penalties = Penalties(sampling, prompt_ids)
        self._random = torch.Generator()
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed)

    @property
    def takes_best(self) -> bool:
        """Whether the highest logit is taken, which the engine does for all such rows at once."""
        free = self._constraint is None and self._penalties.change_nothing
        return self._is_greedy and free

    def choose(self, logits: torch.Tensor) -> int:
        """The next token, from logits of shape (vocabulary,). Raises ValueError as Constraint."""
        logits = self._penalties.on(logits)
        if self._constraint is not None:
            logits = self._constraint.on(logits)
        token = int(logits.argmax()) if self._is_greedy else self._draw(logits)
        self._penalties.note(token)
        if self._constraint is not None:
            self._constraint.note(token)
        return token

    @property
    def _is_greedy(self) -> bool:
        return self._sampling.temperature < LEAST_TEMPERATURE or self._sampling.top_k == 1

    def _draw(self, logits: torch.Tensor) -> int:
        scaled = (logits.float() - logits.max()) / self._sampling.temperature
        values, tokens = _candidates(scaled, self._sampling.top_k, self._sampling.top_p)
        if self._sampling.min_p:
            values, tokens = _likely_enough(values, tokens, self._sampling.min_p)
        weights = torch.softmax(values, dim=-1).cpu()
        drawn = int(torch.multinomial(weights, 1, generator=self._random))
        return drawn if tokens is None else int(tokens[drawn])


def _candidates(
    logits: torch.Tensor, top_k: int, top_p: float
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Logits that may be drawn and their token ids; None means every token, in order."""
    size = logits.shape[-1]
    values, tokens = logits, None
    narrowed = 0 < top_k < size
    if narrowed:
        values, tokens = logits.topk(top_k)
    if top_p < 1:
        if tokens is None:
            values, tokens = _most_likely(logits, top_p)
        mass = torch.softmax(values, dim=-1) if narrowed else _mass(values, logits)
        before = mass.cumsum(-1) - mass
        keep = max(1, int((before < top_p).sum()))
        values, tokens = values[:keep], tokens[:keep]
    return values, tokens


def _likely_enough(
    values: torch.Tensor, tokens: torch.Tensor | None, min_p: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of candidates those with at least min_p times the probability of the best one."""
    kept = (values >= values.max() + math.log(min_p)).nonzero()[:, 0]
    return values[kept], kept if tokens is None else tokens[kept]


def _most_likely(logits: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Sorted logits that hold at least top_p of the mass; 49152 are sorted only where needed."""
    few = min(NUCLEUS_CANDIDATES, logits.shape[-1])
    values, tokens = logits.topk(few)
    if few < logits.shape[-1] and float(_mass(values, logits).sum()) < top_p:
        values, tokens = logits.sort(descending=True)
    return values, tokens


def _mass(values: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    return torch.exp(values - torch.logsumexp(logits, dim=-1))
