"""raylora's own engine: the base, the bank and the engine's thread in this process."""

import gc
from typing import Any

from raylora.config.serve_spec import ServeSpec
from raylora.engine.generator import Engine
from raylora.lora import devices
from raylora.lora.bank.bank import Bank
from raylora.lora.base import load_for_generation
from raylora.lora.sources import LocalModel
from raylora.serve.adapters.shelf import BankSlots
from raylora.serve.engine_thread import EngineThread
from raylora.serve.engines import Running


def start_own_engine(spec: ServeSpec, local: LocalModel, tokenizer: Any) -> Running:
    """Load the base and begin to step."""
    model = load_for_generation(local, spec.model, devices.pick())
    bank = Bank(model, base_revision=local.revision)
    engine = Engine(
        model,
        tokenizer,
        bank,
        max_batch_size=spec.batching.max_batch_size,
        max_length=spec.model.max_length,
        cache_bytes=spec.batching.cache_mb << 20,
        prefill_tokens=spec.batching.prefill_tokens,
    )
    # Before anybody waits: a thread beside it would hold the interpreter's lock all the while.
    engine.prepare_grammars()
    leave_what_is_loaded()
    thread = EngineThread(engine, step_timeout_s=spec.batching.step_timeout_s)
    thread.start()
    return Running(thread, BankSlots(bank, thread, spec.max_adapters), engine.max_length)


def leave_what_is_loaded() -> None:
    """Have the garbage collector pass over what is there now, which stays anyway.

    It went through all of it every few hundred prompts, and every stream waited: 60 to 90 ms.
    """
    gc.collect()
    gc.freeze()
