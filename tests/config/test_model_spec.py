"""What is said of adapters that were trained on a base stored otherwise."""

import pytest

from raylora.config.model_spec import ModelSpec


def model(quantization: str) -> ModelSpec:
    return ModelSpec.model_validate({"quantization": quantization})


@pytest.mark.parametrize(("kept", "own"), [("nf4", "nf4"), ("none", "none"), (None, "nf4")])
def test_nothing_where_it_is_the_same_or_not_known(kept: str | None, own: str) -> None:
    assert model(own).stored_otherwise("home@2", kept) is None


@pytest.mark.parametrize(("kept", "own"), [("nf4", "none"), ("none", "nf4")])
def test_another_one_is_named_with_what_to_write(kept: str, own: str) -> None:
    said = model(own).stored_otherwise("home@2", kept)
    assert said is not None
    assert said.startswith(f"home@2 was trained on a base with quantization {kept}")
    assert f"model.quantization={kept}" in said
