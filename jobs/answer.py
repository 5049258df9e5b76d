"""A program that answers once: JSON on stdout, all else on stderr, the error's exit code."""

import contextlib
import json
import sys
from collections.abc import Callable

from raylora.errors import ExitCode, RayloraError


def answer(work: Callable[[], object]) -> int:
    """Print what `work` returns; or its error and hint, and give the exit code.

    Packages write to stdout as they please (deepspeed logs there when it is imported), so until
    the answer is known stdout is stderr.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            found = work()
    except RayloraError as error:
        sys.stderr.write(f"error: {error.message}\n")
        if error.hint:
            sys.stderr.write(f"hint: {error.hint}\n")
        return error.exit_code
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return ExitCode.OK
