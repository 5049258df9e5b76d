"""Teacher-forced logits through the batch are those of each row alone."""

import torch

from raylora.engine.scoring import score


def test_logits_of_a_padded_batch_are_those_of_each_row(small_llama, base_only):
    rows = [([5, 6, 7, 8], None), ([9] * 30, None), ([3], None)]
    for (ids, _), logits in zip(rows, score(small_llama, base_only, rows), strict=True):
        alone = small_llama(torch.tensor([ids])).logits[0]
        torch.testing.assert_close(logits, alone)
