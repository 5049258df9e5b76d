"""Rules about adapters, and about the base that they sit on."""

from raylora.config.lora_spec import DECOMPOSING, MAX_RANK, Init
from raylora.config.model_spec import FOUR_BIT, Quantization
from raylora.config.rule import Rule

RULES: tuple[Rule, ...] = (
    Rule(
        "double quantisation of nothing",
        lambda s: s.model.double_quant and s.model.quantization not in FOUR_BIT,
        "model.double_quant packs the scales of 4-bit weights, and model.quantization has none",
        "write model.quantization=nf4 or model.double_quant=false",
    ),
    Rule(
        "decomposition of a quantised base",
        lambda s: (
            s.lora.init_lora_weights in DECOMPOSING
            and s.model.quantization is not Quantization.NONE
        ),
        "lora.init_lora_weights takes a part out of each weight, and what is left would be other "
        "few-bit weights (model.quantization) than those that serve",
        "write model.quantization=none, or lora.init_lora_weights=loftq on 4 bits",
    ),
    Rule(
        "LoftQ without 4 bits",
        lambda s: s.lora.init_lora_weights is Init.LOFTQ and s.model.quantization not in FOUR_BIT,
        "lora.init_lora_weights=loftq makes up for the error of 4-bit weights, and "
        "model.quantization has none",
        "write model.quantization=nf4, or lora.init_lora_weights=default",
    ),
    Rule(
        "twice a large rank",
        lambda s: s.lora.init_lora_weights in DECOMPOSING and 2 * s.lora.largest_r > MAX_RANK,
        "lora.r or lora.rank_pattern is over 128, and lora.init_lora_weights is saved with twice "
        "the rank, of which 256 can be served",
        "write ranks up to 128, or lora.init_lora_weights=default",
    ),
    Rule(
        "orthogonal start of odd rank",
        lambda s: (
            s.lora.init_lora_weights is Init.ORTHOGONAL
            and any(r % 2 for r in (s.lora.r, *s.lora.rank_pattern.values()))
        ),
        "lora.r and lora.rank_pattern must be even, for lora.init_lora_weights=orthogonal shares "
        "them out between A and B",
        "write even ranks",
    ),
    Rule(
        "iterations of another start",
        lambda s: s.lora.pissa_niter > 0 and s.lora.init_lora_weights is not Init.PISSA,
        "lora.pissa_niter belongs to pissa, and lora.init_lora_weights is another",
        "write lora.init_lora_weights=pissa or lora.pissa_niter=0",
    ),
    Rule(
        "DoRA starts plain",
        lambda s: s.lora.use_dora and s.lora.init_lora_weights in (*DECOMPOSING, Init.LOFTQ),
        "lora.use_dora measures magnitudes while the adapter is still nothing, and "
        "lora.init_lora_weights starts from something",
        "write lora.init_lora_weights=default or lora.use_dora=false",
    ),
    Rule(
        "adapted and in full",
        lambda s: bool(set(s.lora.modules_to_save) & set(s.lora.named_targets)),
        "lora.modules_to_save trains layers in full that lora.target_modules adapts",
        "name each in one of them",
    ),
)
