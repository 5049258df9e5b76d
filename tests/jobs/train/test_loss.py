import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.families import FAMILIES
from transformers import AutoConfig, AutoModelForCausalLM

from raylora.jobs.data.batches import join
from raylora.jobs.data.examples import IGNORED, Example
from raylora.jobs.train import loss as loss_module
from raylora.jobs.train.loss import SupervisedLoss
from raylora.jobs.train.prepare import prepare

LENGTHS = (9, 3, 20, 14)


def examples(weights: bool = False) -> list[Example]:
    """Prompts of random tokens, answers of the last 60 %."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for length in LENGTHS:
        ids = torch.randint(3, 250, (length,), generator=generator).tolist()
        start = max(1, int(0.4 * length))
        weight = torch.rand(length, generator=generator).tolist() if weights else None
        rows.append(Example(ids, [IGNORED] * start + ids[start:], weight))
    return rows


def model_of(family: str):
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(FAMILIES[family].make_config(), dtype=torch.float32)
    base.requires_grad_(False)
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1)
    return model, base


def gradients(model, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))


def one_by_one(model, rows: list[Example]) -> torch.Tensor:
    """The model's own logits of each document alone, in eager attention."""
    model.get_base_model().set_attn_implementation("eager")
    total = torch.zeros(())
    for row in rows:
        logits = model(input_ids=torch.tensor([row.input_ids])).logits[0, :-1]
        targets = torch.tensor(row.labels[1:])
        losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        total = total + (losses * torch.tensor(row.weights or [1.0] * len(row))[1:]).sum()
    return total


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("weights", [False, True])
def test_packed_documents_lose_what_they_lose_one_by_one(family, weights, record_property):
    model, base = model_of(family)
    rows = examples(weights)
    expected = one_by_one(model, rows)
    reference = gradients(model, expected)

    prepare(model, base)
    total = SupervisedLoss(model, base)(**join(rows))
    record_property("difference", abs(total.item() / expected.item() - 1))  # for the bars
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    for ours, theirs in zip(gradients(model, total), reference, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_a_document_does_not_move_when_its_neighbours_change():
    model, base = model_of("llama")
    prepare(model, base)
    supervised = SupervisedLoss(model, base)
    first, other, _, last = examples()
    others = Example(other.input_ids, [IGNORED] * len(other))
    changed = Example(last.input_ids[::-1], [IGNORED] * len(last))
    alone = supervised(**join([first]))
    assert supervised(**join([others, first, changed])).item() == pytest.approx(
        alone.item(), rel=1e-6
    )


def test_chunks_change_nothing(monkeypatch):
    model, base = model_of("llama")
    prepare(model, base)
    supervised = SupervisedLoss(model, base)
    whole = supervised(**join(examples()))
    reference = gradients(model, whole)
    monkeypatch.setattr(loss_module, "CHUNK", 7)
    parts = supervised(**join(examples()))
    assert parts.item() == pytest.approx(whole.item(), rel=1e-6)
    for ours, theirs in zip(gradients(model, parts), reference, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_head_sees_supervised_positions_only():
    model, base = model_of("llama")
    prepare(model, base)
    seen: list[torch.Size] = []
    base.get_output_embeddings().register_forward_hook(
        lambda module, inputs, output: seen.append(inputs[0].shape)
    )
    SupervisedLoss(model, base)(**join(examples()))
    assert seen == [torch.Size([sum(e.supervised_tokens for e in examples()), 64])]


def test_logits_are_scaled_where_the_family_does_so():
    config = AutoConfig.for_model(
        "cohere",
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        logit_scale=0.25,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(config)
    model = get_peft_model(base, LoraConfig(target_modules="all-linear"))
    row = Example(list(range(10)), [IGNORED, *range(1, 10)])
    expected = one_by_one(model, [row])
    prepare(model, base)
    assert SupervisedLoss(model, base)(**join([row])).item() == pytest.approx(expected.item())
