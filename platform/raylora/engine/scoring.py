"""Logits of given tokens through the same model and bank that generate."""

from collections.abc import Sequence
from typing import Any

import torch

from raylora.engine.prefill import left_padded
from raylora.engine.runner import Adapters


def score(
    model: Any,
    bank: Adapters,
    rows: Sequence[tuple[Sequence[int], str | None]],
    *,
    last: int | None = None,
) -> list[torch.Tensor]:
    """Teacher-forced logits of rows (token ids, adapter), run as one left-padded batch.

    Entry i of a row's (tokens, vocabulary) tensor is the prediction after its token i. With
    `last` there are the entries of its last so many tokens only: an answer's, not its prompt's.
    """
    tokens, mask, positions = left_padded([ids for ids, _ in rows], model.device)
    with bank.rows([adapter for _, adapter in rows]), torch.inference_mode():
        logits = model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            use_cache=False,
            logits_to_keep=last or 0,  # 0 is all of them
        ).logits
    return [logits[i, -len(ids) :] for i, (ids, _) in enumerate(rows)]
