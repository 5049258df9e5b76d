"""NEFTune: noise on embeddings while training (Jain et al., 2023)."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel


class Noise(Protocol):
    """Noise for the training passes of one model; validation passes are left in peace."""

    def over(self, lengths: Tensor) -> AbstractContextManager[None]:
        """Within: rows of documents of these lengths, end to end, are embedded with noise."""
        ...


def noise_on(model: PreTrainedModel, alpha: float) -> Noise:
    """Noise on the model's input embeddings; none for alpha 0."""
    return EmbeddingNoise(model, alpha) if alpha else NoNoise()


class EmbeddingNoise:
    """Adds uniform noise of at most alpha / sqrt(length * width), by the document's own length.

    Packed or alone, a document gets noise of the same size. It is drawn from torch's generator of
    the device: who seeds that by the step can repeat the step.
    """

    def __init__(self, model: PreTrainedModel, alpha: float) -> None:
        """Hook the embeddings of `model`."""
        self._alpha = alpha
        self._lengths: Tensor | None = None
        embeddings: Any = model.get_input_embeddings()
        embeddings.register_forward_hook(self._add)

    @contextmanager
    def over(self, lengths: Tensor) -> Iterator[None]:
        """See Noise."""
        self._lengths = lengths
        try:
            yield
        finally:
            self._lengths = None

    def _add(self, module: object, args: object, embedded: Tensor) -> Tensor | None:
        if self._lengths is None:
            return None
        lengths = self._lengths.to(embedded.device)
        largest = self._alpha / (lengths * embedded.shape[-1]).float().sqrt()
        largest = largest.repeat_interleave(lengths)[None, :, None]
        drawn = torch.rand(embedded.shape, device=embedded.device) * 2 - 1
        return embedded + (drawn * largest).to(embedded.dtype)


class NoNoise:
    """What alpha 0 is."""

    def over(self, lengths: Tensor) -> AbstractContextManager[None]:
        """See Noise."""
        return nullcontext()
