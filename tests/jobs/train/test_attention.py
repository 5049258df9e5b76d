import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from raylora.jobs.data.batches import collate
from raylora.jobs.train import attention
from raylora.jobs.train.attention import NAME, use_short_attention
from raylora.jobs.train.loss import SupervisedLoss


def loss_and_gradients(tiny, base, batch):
    model = tiny.with_lora(base)
    loss = SupervisedLoss(model, base)(**batch)
    loss.backward()
    return loss.item(), [p.grad for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize("longest", [attention.LONGEST, 4])
def test_gives_what_torchs_own_gives(tiny, monkeypatch, longest):
    monkeypatch.setattr(attention, "LONGEST", longest)
    batch = collate(tiny.examples(5))
    expected, reference = loss_and_gradients(tiny, tiny.llama(), batch)
    base = tiny.llama()
    use_short_attention(base)
    assert base.config._attn_implementation == NAME
    loss, gradients = loss_and_gradients(tiny, base, batch)
    assert loss == pytest.approx(expected, rel=1e-6)
    for ours, theirs in zip(gradients, reference, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_sliding_window_is_kept(tiny):
    config = MistralConfig(
        vocab_size=tiny.VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=3,
    )
    torch.manual_seed(0)
    model = MistralForCausalLM(config).eval()
    ids = torch.randint(0, tiny.VOCABULARY, (2, 12))
    with torch.no_grad():
        expected = model(ids).logits
        use_short_attention(model)
        torch.testing.assert_close(model(ids).logits, expected)
        model.config.sliding_window = None
        assert not torch.allclose(model(ids).logits, expected)


def test_another_implementation_that_was_chosen_stays(tiny):
    base = tiny.llama()
    base.set_attn_implementation("eager")
    use_short_attention(base)
    assert base.config._attn_implementation == "eager"
