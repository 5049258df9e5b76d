"""vLLM's CPU build, offline, in its own environment (benchmarks/.peers-vllm).

    python -m benchmarks.peers.vllm_generate '{"model": DIR, "threads": 2, "adapters": {...}, ...}'

A line of stdin is {"do": "generate", "keys": ..., "prompts": ..., "new_tokens": ...}; the answer
is one JSON object. With adapters in the settings each of them has a slot of its own.
"""

import json
import sys
import time
from typing import Any

from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
RANK = 16


def main() -> None:
    """Until stdin ends."""
    settings = json.loads(sys.argv[1])
    adapters: dict[str, str] = settings["adapters"]
    options: dict[str, Any] = {}
    if adapters:
        options = {
            "enable_lora": True,
            "max_loras": len(adapters),
            "max_cpu_loras": len(adapters),
            "max_lora_rank": RANK,
        }
    llm = LLM(
        model=settings["model"],
        dtype=DTYPES[settings["dtype"]],
        max_model_len=512,
        max_num_seqs=32,
        seed=0,
        disable_log_stats=True,
        **options,
    )
    loras = {
        key: LoRARequest(key, number, path)
        for number, (key, path) in enumerate(adapters.items(), start=1)
    }
    _say({"ready": True})
    for line in sys.stdin:
        told = json.loads(line)
        sampling = [
            SamplingParams(temperature=0, max_tokens=wanted, ignore_eos=True)
            for wanted in told["new_tokens"]
        ]
        prompts = [{"prompt_token_ids": ids} for ids in told["prompts"]]
        requests = [None if key is None else loras[key] for key in told["keys"]]
        started = time.perf_counter()
        done = llm.generate(
            prompts,
            sampling,
            lora_request=requests if loras else None,
            use_tqdm=False,
        )
        seconds = time.perf_counter() - started
        tokens = sum(len(answer.outputs[0].token_ids) for answer in done)
        _say({"seconds": seconds, "tokens": tokens})


def _say(facts: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
