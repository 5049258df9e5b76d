"""Bad rows: an error that lists them, or a count with the first ones, as the spec says."""

from dataclasses import dataclass, field
from typing import Final

from raylora.config.data_spec import BadRows
from raylora.errors import InvalidData
from raylora.jobs.data.records import Fault

MAX_PROBLEMS: Final = 20
"""Bad rows told of at once; where they are errors, reading stops there."""


@dataclass
class Faults:
    """Collects bad rows."""

    policy: BadRows
    first: list[Fault] = field(default_factory=list[Fault])
    """At most MAX_PROBLEMS."""
    count: int = 0

    def add(self, fault: Fault) -> None:
        """Note a bad row. Raises InvalidData where rows must be good and it is one too many."""
        self.count += 1
        if len(self.first) < MAX_PROBLEMS:
            self.first.append(fault)
        if self.count == MAX_PROBLEMS:
            self.settle()

    def settle(self) -> None:
        """Raise InvalidData that lists the bad rows, where rows must be good."""
        if self.policy is BadRows.ERROR and self.first:
            raise self._report()

    def listed(self) -> tuple[str, ...]:
        """One line for each of the first ones."""
        return tuple(f"{fault.place}: {fault.problem}" for fault in self.first)

    def _report(self) -> InvalidData:
        first, *others = self.first
        message = str(first.problem)
        for fault in others:
            message += f"\n{fault.place}: {fault.problem}. {fault.problem.hint}"
        if self.count == MAX_PROBLEMS:
            message += f"\nstopped reading after {MAX_PROBLEMS} bad lines"
        return InvalidData(
            message, file=first.place.file, line=first.place.line, hint=first.problem.hint
        )
