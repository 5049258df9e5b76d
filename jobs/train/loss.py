"""Next-token cross entropy, computed only where there are labels.

Logits of a whole batch never exist: hidden states are gathered at the supervised positions into
one 2-D matrix, and the output head (49152 x 576 in SmolLM2, a third of a forward pass) sees
nothing else. 2-D also keeps a frozen head on the plain matrix product; with a 3-D slice torch
takes the batched one, which copies the head once per row.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from raylora.jobs.data.examples import IGNORED
from raylora.jobs.train.cross_entropy import cross_entropy
from raylora.jobs.train.documents import Documents

CHUNK = 2048
"""Supervised positions per block of logits: 0.2 GB in bf16 with 49152 tokens."""


class SupervisedLoss(nn.Module):
    """Wraps a causal language model; its forward pass gives the weighted SUM of the losses.

    The caller divides by the weight of the global batch, so that every token counts the same
    however rows are spread over micro-batches and workers.
    """

    def __init__(self, model: nn.Module, causal: PreTrainedModel) -> None:
        """`model` owns the parameters (PEFT's wrapper), `causal` is the model inside it."""
        super().__init__()
        self.model = model
        head = causal.get_output_embeddings()
        assert head is not None, "a causal language model has an output head"
        # In a tuple, out of the module tree: all three are part of `model` already.
        self._parts = (causal.get_decoder(), _Logits(causal))

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor,
        position_ids: Tensor,
        lengths: Tensor,
        weights: Tensor | None = None,
        parts: Sequence[int] | None = None,
    ) -> Tensor:
        """Weighted sum of cross entropies over supervised positions, a float32 scalar.

        input_ids, labels, position_ids and weights are [1, length]: documents of the `lengths`
        end to end, the first label of each IGNORED, so that none predicts the next one. With
        `parts`, the tokens of each of several parts end to end, a sum for each: [parts].
        """
        decoder, logits = self._parts
        documents = Documents(tuple(lengths.tolist()), input_ids.device)
        hidden = decoder(
            input_ids=input_ids, position_ids=position_ids, documents=documents, use_cache=False
        ).last_hidden_state[0]
        supervised = labels[0] != IGNORED
        at = supervised.nonzero()[:, 0]
        targets = labels[0, at]
        weight = torch.ones_like(targets, dtype=torch.float32)
        if weights is not None:
            weight = weights[0, at]
        # The head is read once for all parts: few positions of each, and 28M weights in SmolLM2.
        losses = _chunked(logits, hidden[at - 1], targets, weight)
        if parts is None:
            return losses.sum()
        sizes = [int(part.sum()) for part in supervised.split(list(parts))]
        return torch.stack([part.sum() for part in losses.split(sizes)])


class _Logits:
    """The output head and what a family does to its logits."""

    def __init__(self, causal: PreTrainedModel) -> None:
        config: Any = causal.config
        self._head: Any = causal.get_output_embeddings()
        self._softcap: float | None = getattr(config, "final_logit_softcapping", None)
        scale = getattr(config, "logit_scale", None) or 1.0  # Cohere multiplies
        self._scale = scale / (getattr(config, "logits_scaling", None) or 1.0)  # Granite divides

    def __call__(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self._head(hidden)
        if self._scale != 1.0:
            logits = logits * self._scale
        if self._softcap is not None:
            logits = torch.tanh(logits / self._softcap) * self._softcap
        return logits


def _chunked(logits: _Logits, hidden: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    if len(targets) <= CHUNK:
        return cross_entropy(logits(hidden), targets, weights)
    # Recomputed in the backward pass, so that one block of logits lives at a time.
    parts = zip(*(x.split(CHUNK) for x in (hidden, targets, weights)), strict=True)
    losses = [checkpoint(_cross_entropy, logits, *part, use_reentrant=False) for part in parts]
    return torch.cat(losses)


def _cross_entropy(logits: _Logits, hidden: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    return cross_entropy(logits(hidden), targets, weights)
