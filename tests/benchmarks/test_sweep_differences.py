import math
from pathlib import Path

import pytest
import torch
from benchmarks.sweep.differences import largest, products_apart, share_of_spread
from safetensors.torch import save_file


def test_the_step_that_differs_most_counts():
    assert largest([1.0, 2.2, 3.0], [1.0, 2.0, 3.0]) == pytest.approx(0.1)


def test_what_isolated_runs_differ_by_is_the_measure():
    runs = [[1.0, 1.0], [1.01, 1.01], [1.0, 1.0]]
    assert share_of_spread([1.005, 1.005], [1.0, 1.0], runs) == pytest.approx(0.5, rel=0.02)
    assert share_of_spread([1.02, 1.02], [1.0, 1.0], runs) > 1
    assert share_of_spread([1.0], [1.0], [[2.0], [2.0]]) == 0
    assert share_of_spread([1.1], [1.0], [[2.0], [2.0]]) == math.inf


def adapter(path: Path, a: torch.Tensor, b: torch.Tensor) -> Path:
    save_file({"x.lora_A.weight": a.contiguous(), "x.lora_B.weight": b.contiguous()}, path)
    return path


def test_products_are_compared_and_not_their_factors(tmp_path: Path):
    a, b = torch.randn(2, 6), torch.randn(5, 2)
    mixed = torch.tensor([[0.0, 2.0], [1.0, 0.0]])
    one = adapter(tmp_path / "one", a, b)
    same = adapter(tmp_path / "same", mixed @ a, b @ mixed.inverse())
    other = adapter(tmp_path / "other", a, 1.5 * b)
    assert products_apart(one, same) < 1e-6
    assert products_apart(other, one) == pytest.approx(0.5, rel=1e-5)
