"""One forward and backward pass for the micro-batches of several trials.

They are laid end to end: packed attention keeps documents apart, each token goes through its own
trial's adapter, and the frozen base sees one large batch. A trial's loss and gradients are those
that it would have alone, up to the rounding of larger matrix products.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from raylora.errors import JobFailed
from raylora.jobs.train import backoff, collective
from raylora.jobs.train.passes import evaluating
from raylora.jobs.train.route import Part, Route
from raylora.sweeps.fused.player import Player

_LESS = "lower training.micro_batch_size or data.max_length, or sweep.trials_per_slot"
Found = tuple[Tensor, Sequence[Tensor | None]]
"""Loss and gradients."""
Answer = Found | Exception
"""Or that memory ran out, on all workers alike."""


@dataclass(frozen=True)
class PassRequest:
    """A micro-batch of one trial; without parameters it is only looked at."""

    adapter: str
    inputs: Mapping[str, Tensor]
    scale: float = 0.0
    parameters: Sequence[nn.Parameter] = ()
    seed: int = 0

    @property
    def tokens(self) -> int:
        """Length of the packed row."""
        return self.inputs["input_ids"].numel()


class TrialPasses:
    """Passes of one trial: it asks for them and waits, while others do the same."""

    def __init__(self, player: Player, adapter: str) -> None:
        self._player = player
        self._adapter = adapter

    @property
    def in_step(self) -> bool:
        """See Passes. A trial that has no more to ask goes on, to collectives of its own."""
        return dist.get_world_size() > 1

    def gradients(
        self,
        inputs: Mapping[str, Tensor],
        scale: float,
        parameters: Sequence[nn.Parameter],
        seed: int,
    ) -> tuple[Tensor, Sequence[Tensor | None]]:
        """See Passes."""
        return self._player.ask(PassRequest(self._adapter, inputs, scale, parameters, seed))

    def evaluate(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """See Passes."""
        try:
            return self._player.ask(PassRequest(self._adapter, inputs))[0]
        except Exception as error:
            if not backoff.is_out_of_memory(error):
                raise
            raise JobFailed("memory ran out over held-out rows", hint=_LESS) from error


class SharedPasses:
    """Answers requests, as many in one pass as pay."""

    def __init__(self, module: nn.Module, route: Route, most_tokens: int) -> None:
        """`module` is a SupervisedLoss; a pass of several requests has at most `most_tokens`."""
        self._module = module
        self._route = route
        self._most_tokens = most_tokens

    def answer(self, requests: Sequence[PassRequest]) -> list[Answer]:
        """In the order of the requests. Every worker calls it, with those of the same trials."""
        if not requests:
            return []
        answers: dict[int, Answer] = {}
        for training in (True, False):
            alike = [i for i, r in enumerate(requests) if bool(r.parameters) is training]
            for group in _groups([requests[i].tokens for i in alike], self._most_tokens):
                chosen = [alike[i] for i in group]
                found = self._pass([requests[i] for i in chosen])
                answers |= dict(zip(chosen, found, strict=True))
        return _agreed([answers[i] for i in range(len(requests))])

    def _pass(self, requests: Sequence[PassRequest]) -> Sequence[Answer]:
        """In halves where memory runs out; a single request is told, and can ask for less.

        One by one where something is not finite: neighbours are computed together, and 0 times
        infinity is no number for any of them.
        """
        try:
            found = self._train(requests) if requests[0].parameters else self._look(requests)
            if len(requests) == 1 or _all_finite(found):
                return found
            return [answer for request in requests for answer in self._pass([request])]
        except Exception as error:
            if not backoff.is_out_of_memory(error):
                raise
            if len(requests) == 1:
                return [error]
        backoff.release()
        half = len(requests) // 2
        return [*self._pass(requests[:half]), *self._pass(requests[half:])]

    def _train(self, requests: Sequence[PassRequest]) -> list[Found]:
        parameters = [p for request in requests for p in request.parameters]
        with self._route.over(_parts(requests)):
            losses = self._losses(requests)
            scales = torch.tensor([r.scale for r in requests], device=losses.device)
            total = (losses * scales).sum()
            gradients: Any = torch.autograd.grad(total, parameters, allow_unused=True)
        ends = [0, *accumulate(len(r.parameters) for r in requests)]
        own = zip(losses.detach(), pairwise(ends), strict=True)
        return [(loss, gradients[start:end]) for loss, (start, end) in own]

    def _look(self, requests: Sequence[PassRequest]) -> list[Found]:
        with self._route.over(_parts(requests)), evaluating(self._module):
            return [(loss, ()) for loss in self._losses(requests)]

    def _losses(self, requests: Sequence[PassRequest]) -> Tensor:
        """[requests]."""
        return self._module(**_joined(requests), parts=[r.tokens for r in requests])


def _all_finite(found: Sequence[Found]) -> bool:
    """Of gradients the first layer's will do: what is not finite above comes down to it."""
    first = [
        gradients[0].sum() for _, gradients in found if gradients and gradients[0] is not None
    ]
    losses = [loss for loss, _ in found]
    return bool(torch.stack([*losses, *(one.float() for one in first)]).isfinite().all())


def _agreed(answers: Sequence[Answer]) -> list[Answer]:
    """Where memory ran out on one worker, the trial has no answer on any."""
    missing = collective.total([float(isinstance(answer, Exception)) for answer in answers])
    lost = MemoryError("memory ran out on another worker")
    return [
        lost if missed and not isinstance(answer, Exception) else answer
        for answer, missed in zip(answers, missing, strict=True)
    ]


def _parts(requests: Sequence[PassRequest]) -> list[Part]:
    """Which tokens of the joined row are whose."""
    edges = pairwise([0, *accumulate(r.tokens for r in requests)])
    return [
        Part(request.adapter, slice(start, stop), request.seed)
        for request, (start, stop) in zip(requests, edges, strict=True)
    ]


def _joined(requests: Sequence[PassRequest]) -> dict[str, Tensor]:
    """Packed rows as one; weights are 1 where a request has none and another has."""
    names = dict.fromkeys(name for request in requests for name in request.inputs)
    return {
        name: torch.cat([_input(request.inputs, name) for request in requests], dim=-1)
        for name in names
    }


def _input(inputs: Mapping[str, Tensor], name: str) -> Tensor:
    if name in inputs:
        return inputs[name]
    return torch.ones_like(inputs["labels"], dtype=torch.float32)


def _groups(sizes: Sequence[int], most: int) -> list[list[int]]:
    """Neighbours together while their sum stays within `most`."""
    groups: list[list[int]] = []
    filled = 0
    for i, size in enumerate(sizes):
        if groups and filled + size <= most:
            groups[-1].append(i)
            filled += size
        else:
            groups.append([i])
            filled = size
    return groups
