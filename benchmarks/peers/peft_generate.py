"""transformers' `generate` over padded batches, with PEFT's two ways to serve several adapters.

    python -m benchmarks.peers.peft_generate '{"model": DIR, "threads": 2, "adapters": {...}, ...}'

A line of stdin is {"do": "generate", "keys": ..., "prompts": ..., "new_tokens": ..., "way": ...}
or {"do": "serve", "arrivals": ..., "prompts": ..., "new_tokens": ..., "batch": ...}; the answer is
one JSON object. No answer ends before its length.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, StoppingCriteria, StoppingCriteriaList

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
BASE = "__base__"
"""PEFT's name for no adapter."""

Facts = dict[str, Any]


def main() -> None:
    """Until stdin ends."""
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(settings["threads"])
    bench = Bench(settings)
    _say({"ready": True})
    tasks: dict[str, Callable[..., Facts]] = {"generate": bench.generate, "serve": bench.serve}
    for line in sys.stdin:
        told = json.loads(line)
        _say(tasks[told.pop("do")](**told))


class Bench:
    """A base with all adapters loaded."""

    def __init__(self, settings: Facts) -> None:
        model: Any = AutoModelForCausalLM.from_pretrained(
            settings["model"], dtype=DTYPES[settings["dtype"]]
        )
        self._peft = False
        for key, path in settings["adapters"].items():
            if self._peft:
                model.load_adapter(path, adapter_name=key, autocast_adapter_dtype=False)
            else:
                model = PeftModel.from_pretrained(
                    model, path, adapter_name=key, autocast_adapter_dtype=False
                )
            self._peft = True
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 0
        self._model = model.eval()

    def generate(
        self, keys: list[str | None], prompts: list[list[int]], new_tokens: list[int], way: str
    ) -> Facts:
        """All of them, mixed in one batch (`adapter_names`) or group by group (`set_adapter`)."""
        started = time.perf_counter()
        names = [key or BASE for key in keys]
        if way == "adapter_names":
            self._answer(prompts, max(new_tokens), {"adapter_names": names})
        else:
            for name in dict.fromkeys(names):
                own = [i for i, other in enumerate(names) if other == name]
                self._model.set_adapter(name)
                self._answer([prompts[i] for i in own], max(new_tokens[i] for i in own), {})
        return {"seconds": time.perf_counter() - started, "tokens": sum(new_tokens)}

    def serve(
        self,
        arrivals: list[float],
        prompts: list[list[int]],
        new_tokens: list[int],
        batch: int,
    ) -> Facts:
        """Static batches of whatever has arrived, each as long as its longest answer.

        A request's first token counts from the step that made it, though `generate` gives nothing
        out before the batch has ended.
        """
        started = time.perf_counter()
        waiting = list(range(len(arrivals)))
        first: list[float] = []
        while waiting:
            now = time.perf_counter() - started
            taken = [i for i in waiting if arrivals[i] <= now][:batch]
            if not taken:
                time.sleep(arrivals[waiting[0]] - now)
                continue
            waiting = [i for i in waiting if i not in taken]
            clock = FirstStep()
            self._answer([prompts[i] for i in taken], max(new_tokens[i] for i in taken), {}, clock)
            first += [clock.at - started - arrivals[i] for i in taken]
        return {
            "seconds": time.perf_counter() - started,
            "tokens": sum(new_tokens),
            "first_s": first,
        }

    def _answer(
        self,
        prompts: Sequence[Sequence[int]],
        new_tokens: int,
        options: Facts,
        clock: "FirstStep | None" = None,
    ) -> None:
        width = max(map(len, prompts))
        tokens = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        criteria = StoppingCriteriaList([] if clock is None else [clock])
        with torch.inference_mode():
            out = self._model.generate(
                input_ids=tokens,
                attention_mask=mask,
                max_new_tokens=new_tokens,
                do_sample=False,
                stopping_criteria=criteria,
                **options,
            )
        if out.shape[1] != width + new_tokens:
            raise RuntimeError(f"{out.shape[1] - width} tokens of {new_tokens}")


class FirstStep(StoppingCriteria):
    """Notes when the first token was there; stops nothing."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self, input_ids: torch.Tensor, scores: Any, **given: Any) -> torch.Tensor:
        """After each step."""
        self.at = self.at or time.perf_counter()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)


def _say(facts: Facts) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
