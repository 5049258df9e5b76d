"""Next-token cross entropy, computed only where there are labels.

Logits of a whole batch never exist: hidden states are gathered at the supervised positions into
one 2-D matrix, and the output head (49152 x 576 in SmolLM2, a third of a forward pass) sees
nothing else. 2-D also keeps a frozen head on the plain matrix product; with a 3-D slice torch
takes the batched one, which copies the head once per row.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PretrainedConfig, PreTrainedModel

from raylora.errors import JobFailed
from raylora.jobs.data.encode import IGNORED

CHUNK = 2048
"""Supervised positions per block of logits: 0.4 GB in fp32 with 49152 tokens."""

LOGIT_TRANSFORMS = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""Config keys of families that change the logits after the head."""


def supervised_tokens(labels: Tensor) -> int:
    """Number of positions whose next token is a label."""
    return int((labels[:, 1:] != IGNORED).sum())


class SupervisedLoss(nn.Module):
    """Wraps a causal language model; its forward pass gives the SUM of the losses.

    The caller divides by the number of supervised tokens of the global batch, so that every token
    weighs the same however rows are spread over micro-batches and workers.
    """

    def __init__(self, model: nn.Module, causal: PreTrainedModel) -> None:
        """`model` owns the parameters (PEFT's wrapper), `causal` is the model inside it."""
        super().__init__()
        self.model = model
        _refuse_logit_transforms(causal.config)
        head = causal.get_output_embeddings()
        assert head is not None, "a causal language model has an output head"
        # In a tuple, out of the module tree: both are part of `model` already.
        self._parts = (causal.get_decoder(), head)

    def forward(
        self, input_ids: Tensor, labels: Tensor, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Sum of cross entropies over supervised positions, a float32 scalar.

        All inputs are [rows, length]. Rows are padded on the right, where causal attention never
        looks from a real token, so the mask is not used and attention needs no mask tensor.
        """
        decoder, head = self._parts
        hidden = decoder(input_ids=input_ids, use_cache=False).last_hidden_state
        supervised = labels[:, 1:] != IGNORED
        return _chunked_cross_entropy(hidden[:, :-1][supervised], labels[:, 1:][supervised], head)


def _chunked_cross_entropy(hidden: Tensor, targets: Tensor, head: nn.Module) -> Tensor:
    if len(targets) <= CHUNK:
        return _cross_entropy(hidden, targets, head)
    total = torch.zeros((), dtype=torch.float32, device=hidden.device)
    for rows, labels in zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True):
        # Recomputed in the backward pass, so that one block of logits lives at a time.
        total = total + checkpoint(_cross_entropy, rows, labels, head, use_reentrant=False)
    return total


def _cross_entropy(hidden: Tensor, targets: Tensor, head: nn.Module) -> Tensor:
    return functional.cross_entropy(head(hidden).float(), targets, reduction="sum")


def _refuse_logit_transforms(config: PretrainedConfig) -> None:
    for key in LOGIT_TRANSFORMS:
        value = getattr(config, key, None)
        if value not in (None, 1, 1.0):
            raise JobFailed(
                f"model family {config.model_type!r} changes its logits after the output head "
                f"({key}={value}), which the training loss does not do",
                hint="train a llama, mistral, qwen, phi or smollm model",
            )
