"""BatchSpec: every row of a file asked of every adapter named."""

from pydantic import Field

from raylora.config.serve_spec import ServeSpec
from raylora.config.spec import NonEmpty, Spec


class BatchSpec(Spec):
    """`raylora batch` runs exactly this."""

    input: NonEmpty
    """File, glob, folder or URL of rows in any shape that training takes; answers are optional."""
    output: NonEmpty
    """JSONL file of answers, one line for each row and adapter; continued where it was left."""
    adapters: tuple[NonEmpty, ...] = ()
    """References: name, name@7 or name@alias."""
    base: bool = False
    """Let the base answer too."""
    system_prompt: str | None = None
    """null: the one each adapter was trained with. Empty: none. A row's own goes before both."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Of each answer; null is serving.batching.default_max_tokens."""
    temperature: float = Field(default=0, ge=0, le=2)
    seed: int = 0
    """Where the temperature is not 0, row i is drawn with seed + i."""
    serving: ServeSpec = ServeSpec()
    """The base, where adapters come from, and how many replicas of which size answer."""
