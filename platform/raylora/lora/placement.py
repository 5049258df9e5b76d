"""Which layers of a base an adapter sits on, with which ranks, and which are trained in full."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from transformers import PreTrainedModel

from raylora.config.lora_spec import DECOMPOSING, LoraSpec
from raylora.errors import InvalidConfig, Problem
from raylora.lora.adapter_config import ends_with, lies_in
from raylora.lora.base import linear_shapes

_Value = TypeVar("_Value", int, float)


@dataclass(frozen=True)
class Placement:
    """What PEFT is told, in names that cannot be taken for others."""

    targets: list[str]
    """Last components of the layers' names."""
    ranks: dict[str, int]
    """By ends of names, the longest first: PEFT and the bank take the first that fits."""
    alphas: dict[str, float]
    saved: list[str]
    """Full names of the modules trained in full."""
    tied: bool
    """Whether input embeddings and head are one matrix, and it is among them."""


def place(model: PreTrainedModel, spec: LoraSpec) -> Placement:
    """Check the spec's names against the base; PEFT objects only where none fits.

    Raises InvalidConfig with every name at fault.
    """
    shapes = linear_shapes(model)
    saved, problems = _saved(model, spec)
    targets, unknown = _targets(shapes, spec)
    adapted = {
        name: shape
        for name, shape in shapes.items()
        if name.rpartition(".")[2] in targets and not any(lies_in(name, top) for top in saved)
    }
    problems += unknown
    if not unknown:
        problems += _unfit(adapted, "rank_pattern", spec.rank_pattern)
        problems += _unfit(adapted, "alpha_pattern", spec.alpha_pattern)
        problems += _too_large(adapted, spec)
    if problems:
        raise InvalidConfig(problems)
    # all-linear becomes names too. PEFT would save full ones for small models, under which a layer
    # that is missing from the file looks as if it had never been meant.
    used = {name.rpartition(".")[2] for name in adapted}
    return Placement(
        targets=sorted(used),
        ranks=_exact_first(spec.rank_pattern),
        alphas=_exact_first(spec.alpha_pattern),
        saved=saved,
        tied=_is_tied(model, saved),
    )


def _targets(
    shapes: Mapping[str, tuple[int, int]], spec: LoraSpec
) -> tuple[set[str], list[Problem]]:
    present = {name.rpartition(".")[2] for name in shapes}
    if spec.target_modules == "all-linear":
        return present, []
    chosen = set(spec.named_targets)
    unknown = sorted(chosen - present)
    remedy = f"Write all-linear or some of {', '.join(sorted(present))}"
    message = f"the base has no linear layer named {', '.join(unknown)}"
    return chosen, [Problem("lora.target_modules", message, remedy)] if unknown else []


def _saved(model: PreTrainedModel, spec: LoraSpec) -> tuple[list[str], list[Problem]]:
    modules = dict(model.named_modules(remove_duplicate=False))
    found: list[str] = []
    problems: list[Problem] = []
    for end in spec.modules_to_save:
        fitting = [name for name in modules if name and ends_with(name, end)]
        found += fitting
        if not fitting:
            remedy = f"Write some of {', '.join(_plain_tops(modules))}"
            problems.append(
                Problem("lora.modules_to_save", f"the base has no module named {end}", remedy)
            )
        packed = [name for name in fitting if not _is_floating(modules[name])]
        if packed:
            message = f"{packed[0]} is quantised, and only plain weights can be trained in full"
            remedy = "Leave it out, or write model.quantization=none"
            problems.append(Problem("lora.modules_to_save", message, remedy))
    return found, problems


def _is_tied(model: PreTrainedModel, saved: list[str]) -> bool:
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    one = bool(getattr(model.config, "tie_word_embeddings", False))
    return one and any(model.get_submodule(name) in ends for name in saved)


def _plain_tops(modules: Mapping[str, torch.nn.Module]) -> list[str]:
    """Names such as lm_head, embed_tokens and norm: what is usually trained in full."""
    return sorted(
        {
            name.rpartition(".")[2]
            for name, module in modules.items()
            if next(module.parameters(recurse=False), None) is not None and _is_floating(module)
        }
    )


def _is_floating(module: torch.nn.Module) -> bool:
    return all(parameter.is_floating_point() for parameter in module.parameters())


def _unfit(adapted: Iterable[str], field: str, pattern: Mapping[str, float]) -> list[Problem]:
    last = ", ".join(sorted({name.rpartition(".")[2] for name in adapted}))
    return [
        Problem(
            f"lora.{field}.{end}",
            "no adapted layer has a name with this end",
            f"Write one of {last}, or more of a name, such as {next(iter(adapted))}",
        )
        for end in pattern
        if not any(ends_with(name, end) for name in adapted)
    ]


def _too_large(adapted: Mapping[str, tuple[int, int]], spec: LoraSpec) -> list[Problem]:
    """PiSSA and OLoRA cannot take more out of a weight than it has."""
    if spec.init_lora_weights not in DECOMPOSING:
        return []
    ranks = _exact_first(spec.rank_pattern)
    for name, shape in adapted.items():
        rank = next((r for end, r in ranks.items() if ends_with(name, end)), spec.r)
        if rank > min(shape):
            method = spec.init_lora_weights.value
            message = f"{method} with rank {rank}, and {name} is a matrix of rank {min(shape)}"
            return [Problem("lora.r", message, f"Write at most {min(shape)}")]
    return []


def _exact_first(pattern: Mapping[str, _Value]) -> dict[str, _Value]:
    return dict(sorted(pattern.items(), key=lambda entry: (-entry[0].count("."), entry[0])))
