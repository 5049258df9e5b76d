"""`python -m raylora.serve.down NAME`: remove one application and leave the others of a cluster.

Runs as a Ray Job. Ray's REST interface can only remove all applications at once.
"""

import sys

from ray import serve

from raylora.cluster.events import StageEvent, emit


def main(arguments: list[str]) -> int:
    """Delete the application and, where it was the last, stop Serve itself."""
    name = arguments[0]
    serve.delete(name)
    emit(StageEvent("serve", f"{name} is down"))
    if not serve.status().applications:
        serve.shutdown()
        emit(StageEvent("serve", "Ray Serve has stopped"))
    emit(StageEvent("done"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
