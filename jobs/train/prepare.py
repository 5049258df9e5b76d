"""Makes a model with an adapter ready to train on packed rows, fast."""

from peft import PeftModel
from transformers import PreTrainedModel

from raylora.jobs.train.attention import use_packed_attention
from raylora.jobs.train.lora_linear import fuse_lora
from raylora.jobs.train.rms_norm import fuse_norms
from raylora.jobs.train.rotary import fuse_rotations
from raylora.jobs.train.route import Route
from raylora.jobs.train.swiglu import fuse_gates


def prepare(model: PeftModel, base: PreTrainedModel, *, split_weights: bool = False) -> Route:
    """Let attention keep documents apart; plain adapters, norms, gates run as one function each.

    Adapters follow the route that is returned. With split_weights (ZeRO 3) a weight is whole only
    while its own layer runs, so layers stay as they are.
    """
    route = Route()
    use_packed_attention(base)
    if not split_weights:
        fuse_lora(model, route)
        fuse_norms(model)
        fuse_gates(model)
        fuse_rotations(model)
    # Dropout acts in train mode only; the frozen base of a causal model has none of its own.
    model.train()
    return route
