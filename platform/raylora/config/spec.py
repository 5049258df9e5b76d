"""What every spec shares: frozen, unknown keys refused, names that are safe as paths and URLs."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

ADAPTER_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
"""No dot (breaks nn.ModuleDict keys), slash, colon or @ (registry and reference syntax)."""

AdapterName = Annotated[str, StringConstraints(pattern=ADAPTER_NAME)]
NonEmpty = Annotated[str, StringConstraints(min_length=1)]


class Spec(BaseModel):
    """Base of all specs. Field docs are the attribute docstrings; defaults live here only."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )
