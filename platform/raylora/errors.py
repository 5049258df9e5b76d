"""The error tree. Every error a user can meet derives from RayloraError and carries its exit code.

RayloraError                1
|- JobFailed                1   the job ran and failed; 5 or 6 where it found its input at fault
|- PromotionRefused         1   a version does not pass its gate; the alias stays
|- PromotionConflict        1   somebody else moved the alias at the same time
|- Unreachable              3   cluster, tracking server or endpoint does not answer
|- NotAuthorised            4   it answers and refuses the token or key
|- InvalidConfig            5   one or more Problems in a spec or an override
|- InsufficientResources    5   the cluster can never hold what was asked
|- InvalidAdapter           5   a directory fails the integrity check
|- NotFound                 5   no such adapter, run, job, model or preset
|- InvalidRequest           5   the engine cannot answer a request as it stands
|- MissingExtra             5   an optional dependency is not installed
|- InvalidData              6   a data file, with its line
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """What the shell sees."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_AUTHORISED = 4
    INVALID = 5
    DATA = 6
    INTERRUPTED = 130


class RayloraError(Exception):
    """Root of the tree: a message that says what, where, what was found and what to do instead."""

    exit_code: ExitCode = ExitCode.FAILED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        """Keep keyword state when an error crosses a process (Ray pickles exceptions)."""
        return (_rebuild, (type(self), self.args, self.__dict__))


class JobFailed(RayloraError):
    """The job ran and failed."""

    def __init__(
        self, message: str, *, hint: str | None = None, exit_code: ExitCode = ExitCode.FAILED
    ) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class PromotionRefused(RayloraError):
    """A version does not pass its gate, and the alias stays where it is."""


class PromotionConflict(RayloraError):
    """Somebody else moved the alias while this was being decided; nothing was changed."""


class Unreachable(RayloraError):
    """A cluster, tracking server or endpoint does not answer."""

    exit_code = ExitCode.UNREACHABLE


class NotAuthorised(RayloraError):
    """The other side refuses the token or key."""

    exit_code = ExitCode.NOT_AUTHORISED


@dataclass(frozen=True)
class Problem:
    """One mistake in a spec."""

    key: str
    """Dotted key, such as lora.r; empty where the file as a whole is meant."""
    message: str
    """What is wrong, with what was found."""
    remedy: str
    """What to write instead."""
    source: str = ""
    """File or override the value came from."""

    def __str__(self) -> str:
        where = f" ({self.source})" if self.source else ""
        return f"{self.key or 'config'}{where}: {self.message}. {self.remedy}"


class InvalidConfig(RayloraError):
    """Every problem of a spec at once."""

    exit_code = ExitCode.INVALID

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(p) for p in problems))
        self.problems = tuple(problems)


class InsufficientResources(RayloraError):
    """The cluster can never hold what was asked."""

    exit_code = ExitCode.INVALID


class InvalidAdapter(RayloraError):
    """An adapter directory fails the integrity check."""

    exit_code = ExitCode.INVALID


class NotFound(RayloraError):
    """No such adapter, version, alias, run, job, model or preset."""

    exit_code = ExitCode.INVALID


class InvalidRequest(RayloraError):
    """The engine cannot answer a request as it stands."""

    exit_code = ExitCode.INVALID


class MissingExtra(RayloraError):
    """An optional dependency is not installed."""

    exit_code = ExitCode.INVALID

    def __init__(self, extra: str, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs packages that are not installed",
            hint=f"pip install 'raylora[{extra}]'",
        )


class InvalidData(RayloraError):
    """A data file is wrong; names the file and, where there is one, the line (1-based)."""

    exit_code = ExitCode.DATA

    def __init__(
        self, message: str, *, file: str, line: int | None = None, hint: str | None = None
    ) -> None:
        where = f"{file}:{line}" if line is not None else file
        super().__init__(f"{where}: {message}", hint=hint)
        self.file = file
        self.line = line


def _rebuild(
    kind: type[RayloraError], args: tuple[object, ...], state: dict[str, object]
) -> RayloraError:
    error = kind.__new__(kind)
    Exception.__init__(error, *args)
    error.__dict__.update(state)
    return error
