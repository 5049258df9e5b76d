"""How each family of models writes a conversation: a chat template of ours and a tokenizer for it.

The templates give the wire format of the family, with what makes its masks hard: trimmed answers,
a system message that moves to the last question, reasoning that is dropped from earlier answers, a
token behind the whole conversation, control tokens that swallow white space.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

CHATML_TURN = (
    "<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}\n<tool_call>\n{{ c.function | tojson }}\n</tool_call>"
    "{% endfor %}<|im_end|>\n"
)
CHATML_PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

SMOLLM = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    + CHATML_PROMPT
)
QWEN2 = (
    "{% if tools %}<|im_start|>system\nTools: {{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}" + CHATML_TURN + "{% endfor %}" + CHATML_PROMPT
)
QWEN3 = (
    "{% if tools %}<|im_start|>system\nTools: {{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% set at = namespace(question=0) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set at.question = loop.index0 %}"
    "{% endif %}{% endfor %}"
    "{% for m in messages %}{% if m.role == 'assistant' and loop.index0 > at.question %}"
    "<|im_start|>assistant\n<think>\n{{ m.reasoning_content }}\n</think>\n\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}\n<tool_call>\n{{ c.function | tojson }}\n</tool_call>"
    "{% endfor %}<|im_end|>\n"
    "{% else %}" + CHATML_TURN + "{% endif %}{% endfor %}" + CHATML_PROMPT
)
LLAMA = (
    "{{ bos_token }}{% if tools %}<|start_header_id|>system<|end_header_id|>\n\n"
    "{{ tools | tojson }}<|eot_id|>{% endif %}"
    "{% for m in messages %}<|start_header_id|>"
    "{{ 'ipython' if m.role == 'tool' else m.role }}<|end_header_id|>\n\n"
    "{% if m.tool_calls %}{{ m.tool_calls[0].function | tojson }}"
    "{% else %}{{ m.content | trim }}{% endif %}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
MISTRAL = (
    "{% set system = messages[0].content if messages[0].role == 'system' else '' %}"
    "{% set turns = messages[1:] if system else messages %}"
    "{% set last = turns | selectattr('role', 'equalto', 'user') | list | last %}"
    "{{ bos_token }}{% for m in turns %}{% if m.role == 'user' %}"
    "{% if tools and m == last %}[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]"
    "{% endif %}[INST] {% if system and m == last %}{{ system }}\n\n{% endif %}"
    "{{ m.content }}[/INST]"
    "{% elif m.role == 'tool' %}[TOOL_RESULTS] {{ m.content | tojson }}[/TOOL_RESULTS]"
    "{% elif m.tool_calls %}[TOOL_CALLS] ["
    "{% for c in m.tool_calls %}{{ c.function | tojson }}{{ ', ' if not loop.last else '' }}"
    "{% endfor %}]{{ eos_token }}"
    "{% else %} {{ m.content | trim }}{{ eos_token }}{% endif %}{% endfor %}"
)
PHI = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% set system = messages[0].content ~ '\n\n' "
    "if messages[0].role == 'system' else '' %}"
    "{% for m in messages %}{% if m.role not in ('system', 'user', 'assistant') %}"
    "{{ raise_exception('this family has no tools') }}{% endif %}"
    "{% if m.role != 'system' %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{% if loop.index0 == (1 if system else 0) %}{{ system }}{% endif %}"
    "{{ m.content | trim }}<end_of_turn>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


@dataclass(frozen=True)
class Wire:
    """The wire format of one family."""

    template: str
    make: Callable[["Wire"], PreTrainedTokenizerFast]
    bos: str
    eos: str
    end: str
    """Ends an answer."""
    specials: tuple[str, ...]
    plain: tuple[str, ...] = ()
    """Added tokens that are not special."""
    swallows: bool = False
    """Control tokens take the white space behind them."""
    has_tools: bool = False
    before_last: str = ""
    """What the last answer begins with."""

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """A token for each byte or character, and the family's own; with the template."""
        return self.make(self)


def byte_level(wire: Wire) -> PreTrainedTokenizerFast:
    """As of Llama 3, Qwen and SmolLM."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab=_numbered([*_all(wire), *alphabet]), merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return _finished(backend, wire)


def metaspace(wire: Wire) -> PreTrainedTokenizerFast:
    """As of Mistral, Phi and Gemma: spaces are characters, unknown characters become bytes."""
    pieces = ["<unk>", "\u2581", *(chr(code) for code in range(33, 127))]
    pieces += [f"<0x{byte:02X}>" for byte in range(256)]
    backend = Tokenizer(
        models.BPE(
            vocab=_numbered([*_all(wire), *pieces]),
            merges=[],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return _finished(backend, wire)


def _finished(backend: Tokenizer, wire: Wire) -> PreTrainedTokenizerFast:
    backend.add_special_tokens(
        [AddedToken(token, rstrip=wire.swallows, normalized=False) for token in wire.specials]
    )
    backend.add_tokens([AddedToken(token, normalized=False) for token in wire.plain])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=wire.bos,
        eos_token=wire.eos,
        pad_token=wire.specials[0],
        chat_template=wire.template,
        clean_up_tokenization_spaces=False,
    )


def _all(wire: Wire) -> list[str]:
    return list(dict.fromkeys((*wire.specials, *wire.plain)))


def _numbered(tokens: list[str]) -> dict[str, int]:
    return {token: index for index, token in enumerate(tokens)}


CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN_TOKENS = ("<tool_call>", "</tool_call>", "<think>", "</think>")
LLAMA_TOKENS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
MISTRAL_TOKENS = (
    *("<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]"),
    *("[/TOOL_RESULTS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
)
PHI_TOKENS = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
GEMMA_TOKENS = ("<pad>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")

TEMPLATES: dict[str, Wire] = {
    "llama": Wire(
        template=LLAMA,
        make=byte_level,
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        end="<|eot_id|>",
        specials=LLAMA_TOKENS,
        has_tools=True,
    ),
    "mistral": Wire(
        template=MISTRAL,
        make=metaspace,
        bos="<s>",
        eos="</s>",
        end="</s>",
        specials=MISTRAL_TOKENS,
        has_tools=True,
    ),
    "qwen2": Wire(
        template=QWEN2,
        make=byte_level,
        bos="<|endoftext|>",
        eos="<|im_end|>",
        end="<|im_end|>",
        specials=CHATML_TOKENS,
        plain=QWEN_TOKENS,
        has_tools=True,
    ),
    "qwen3": Wire(
        template=QWEN3,
        make=byte_level,
        bos="<|endoftext|>",
        eos="<|im_end|>",
        end="<|im_end|>",
        specials=CHATML_TOKENS,
        plain=QWEN_TOKENS,
        has_tools=True,
        before_last="<think>\n\n</think>\n\n",
    ),
    "phi": Wire(
        template=PHI,
        make=metaspace,
        bos="<|endoftext|>",
        eos="<|endoftext|>",
        end="<|end|>",
        specials=PHI_TOKENS,
        swallows=True,
    ),
    "gemma": Wire(
        template=GEMMA,
        make=metaspace,
        bos="<bos>",
        eos="<eos>",
        end="<end_of_turn>",
        specials=GEMMA_TOKENS,
    ),
    "smollm": Wire(
        template=SMOLLM,
        make=byte_level,
        bos="<|im_start|>",
        eos="<|im_end|>",
        end="<|im_end|>",
        specials=CHATML_TOKENS,
    ),
}
"""By family."""
