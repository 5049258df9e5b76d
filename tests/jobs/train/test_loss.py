import pytest
import torch

from raylora.errors import JobFailed
from raylora.jobs.data.batches import collate
from raylora.jobs.train import loss as loss_module
from raylora.jobs.train.loss import SupervisedLoss, supervised_tokens


@pytest.fixture
def batch(tiny):
    return collate(tiny.examples(5))


def gradients(model) -> list[torch.Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.requires_grad]


def test_equals_the_models_own_loss_on_a_padded_batch(tiny, batch):
    model = tiny.with_lora(tiny.llama())
    expected = model(**batch).loss
    expected.backward()
    reference = gradients(model)
    model.zero_grad()

    total = SupervisedLoss(model, model.get_base_model())(**batch)
    mean = total / supervised_tokens(batch["labels"])
    mean.backward()

    assert mean.item() == pytest.approx(expected.item(), rel=1e-6)
    for ours, theirs in zip(gradients(model), reference, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


def test_chunks_change_nothing(tiny, batch, monkeypatch):
    model = tiny.with_lora(tiny.llama())
    supervised = SupervisedLoss(model, model.get_base_model())
    whole = supervised(**batch)
    whole.backward()
    reference = gradients(model)
    model.zero_grad()

    monkeypatch.setattr(loss_module, "CHUNK", 7)
    parts = supervised(**batch)
    parts.backward()

    assert parts.item() == pytest.approx(whole.item(), rel=1e-6)
    for ours, theirs in zip(gradients(model), reference, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_head_sees_supervised_positions_only(tiny, batch):
    model = tiny.with_lora(tiny.llama())
    seen: list[torch.Size] = []
    head = model.get_base_model().get_output_embeddings()
    head.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    SupervisedLoss(model, model.get_base_model())(**batch)
    assert seen == [torch.Size([supervised_tokens(batch["labels"]), 32])]


def test_a_family_that_changes_its_logits_is_refused(tiny):
    model = tiny.with_lora(tiny.llama())
    model.get_base_model().config.final_logit_softcapping = 30.0
    with pytest.raises(JobFailed, match=r"final_logit_softcapping=30\.0"):
        SupervisedLoss(model, model.get_base_model())
