"""What `raylora serve up` says of versions that were trained on a base stored otherwise."""

from datetime import UTC, datetime

import pytest

from raylora.config.model_spec import ModelSpec
from raylora.serve.up import of_another_base
from raylora.tracking.adapters.version import QUANTIZATION_TAG, Version


def version(**tags: str) -> Version:
    return Version("home", 2, "r1", "m1", "file:x", (), tags, datetime.now(UTC))


def model(quantization: str) -> ModelSpec:
    return ModelSpec.model_validate({"quantization": quantization})


@pytest.mark.parametrize(("kept", "own"), [("nf4", "nf4"), ("none", "none"), (None, "nf4")])
def test_nothing_where_it_is_the_same_or_not_known(kept: str | None, own: str) -> None:
    tags = {} if kept is None else {QUANTIZATION_TAG: kept}
    assert of_another_base(version(**tags), model(own)) is None


@pytest.mark.parametrize(("kept", "own"), [("nf4", "none"), ("none", "nf4")])
def test_another_one_is_named_with_what_to_write(kept: str, own: str) -> None:
    said = of_another_base(version(**{QUANTIZATION_TAG: kept}), model(own))
    assert said is not None
    assert "home@2" in said
    assert f"model.quantization={kept}" in said
