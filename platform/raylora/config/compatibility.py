"""What does not go together in a TrainSpec, and why: the one table of it.

The spec's validator refuses by it, `raylora plan` says that it was checked, `raylora config rules`
prints it, and docs/compatibility.md is made from it.
"""

from typing import TYPE_CHECKING

from raylora.config import adapter_rules, data_rules, training_rules, workers_rules
from raylora.config.rule import Rule

if TYPE_CHECKING:
    from raylora.config.train_spec import TrainSpec

RULES: tuple[Rule, ...] = (
    *data_rules.RULES,
    *adapter_rules.RULES,
    *workers_rules.RULES,
    *training_rules.RULES,
)


def broken(spec: "TrainSpec") -> list[Rule]:
    """The rules that a spec breaks, in the table's order."""
    return [rule for rule in RULES if rule.broken(spec)]
