"""docs/compatibility.md, made from the rules: `python -m raylora.config.compatibility_page`."""

import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from raylora.config.compatibility import RULES
from raylora.config.rule import KEY
from raylora.config.train_spec import TrainSpec

METHODS: Mapping[str, dict[str, Any]] = {
    "LoRA, rsLoRA, LoRA+": {},
    "DoRA": {"lora": {"use_dora": True}},
    "PiSSA": {"lora": {"init_lora_weights": "pissa"}},
    "OLoRA": {"lora": {"init_lora_weights": "olora"}},
    "LoftQ": {"lora": {"init_lora_weights": "loftq"}, "model": {"quantization": "nf4"}},
    "modules_to_save": {"lora": {"modules_to_save": ["lm_head"]}},
}

SETTINGS: Mapping[str, dict[str, Any]] = {
    "bf16, fp32": {"model": {"quantization": "none"}},
    "nf4, fp4": {"model": {"quantization": "nf4"}},
    "int8": {"model": {"quantization": "int8"}},
    "ZeRO 0 to 2": {"workers": {"backend": "deepspeed", "zero_stage": 2}},
    "ZeRO 3": {"workers": {"zero_stage": 3}},
}
"""Sections of a spec, which replace those of the method."""

HEAD = """# What goes together

Made by `python -m raylora.config.compatibility_page` from the table of rules that also refuses a
configuration before anything starts. `raylora config validate my.yaml` names every rule that a
file breaks, with the keys, what was found and what to write instead; `raylora config rules` prints
the table.

## Methods

"""

NOTES = """
- Adapters that share a batch are served beside each other on one base. DoRA learns magnitudes of
  whole weights, and `modules_to_save` replaces whole layers: they are trained, checked and
  evaluated, and then used merged into their base.
- PiSSA and OLoRA take a part out of the base's weights. What they learnt is saved as a plain
  adapter of rank 2r for the base as it was, so that it serves like any other.
- LoftQ leaves the 4-bit base alone (the first iteration of the paper; later ones would store other
  4-bit weights, which no other adapter could share) and starts the adapter as what rounding took
  away. Its adapter is plain and belongs to the quantised base.

## Rules

| refused | because | instead |
|---|---|---|
"""


def page() -> str:
    """The page's text."""
    columns = ["method", *SETTINGS, "shares a batch"]
    lines = [_row(columns), _row("---" for _ in columns)]
    for name, sections in METHODS.items():
        alone = sections.get("lora", {}).keys() & {"use_dora", "modules_to_save"}
        cells = [_verdict(sections | setting) for setting in SETTINGS.values()]
        lines.append(_row([name, *cells, "no, merge it" if alone else "yes"]))
    rules = [_row([rule.name, _code(rule.reason), _code(rule.remedy)]) for rule in RULES]
    return HEAD + "\n".join(lines) + "\n" + NOTES + "\n".join(rules) + "\n"


def main() -> None:
    """Print the page."""
    sys.stdout.write(page())


def _verdict(sections: dict[str, Any]) -> str:
    try:
        TrainSpec.model_validate(sections)
    except ValidationError:
        return "no"
    return "yes"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(sentence: str) -> str:
    """Keys, with the value they are set to, as code."""
    return re.sub(rf"{KEY.pattern}(?:=\w+|: (?:null|\d+))?", lambda key: f"`{key[0]}`", sentence)


if __name__ == "__main__":
    main()
