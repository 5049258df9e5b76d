import pytest
from tests.families import FAMILIES

from raylora.config.lora_spec import LoraSpec
from raylora.jobs.train.parameter_groups import parameter_groups
from raylora.lora.attach import attach


def groups_of(**fields: object):
    spec = LoraSpec.model_validate({"r": 4, **fields})
    model = attach(FAMILIES["llama"].make_model(), spec, seed=0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(dict(model.named_parameters()), spec, weight_decay=0.1)
    trained = [id(p) for p in model.parameters() if p.requires_grad]
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(trained)
    return [
        (group["lr_scale"], group["weight_decay"], [names[id(p)] for p in group["params"]])
        for group in groups
    ]


def test_plain_lora_is_one_group() -> None:
    ((scale, decay, names),) = groups_of()
    assert (scale, decay, len(names)) == (1.0, 0.1, 28)


def test_lora_plus_lets_b_learn_faster() -> None:
    first, second = groups_of(loraplus_lr_ratio=16)
    assert first[:2] == (1.0, 0.1)
    assert all("lora_A" in name for name in first[2])
    assert second[:2] == (16.0, 0.1)
    assert all("lora_B" in name for name in second[2])


@pytest.mark.parametrize(
    ("fields", "part"),
    [({"use_dora": True}, "magnitude"), ({"modules_to_save": ["norm"]}, "norm")],
)
def test_vectors_do_not_decay(fields: dict[str, object], part: str) -> None:
    _, (scale, decay, names) = groups_of(**fields)
    assert (scale, decay) == (1.0, 0.0)
    assert all(part in name for name in names)
