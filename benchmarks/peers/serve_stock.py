"""A stock Ray Serve deployment on a Ray of its own, as in Serve's getting started.

    python -m benchmarks.peers.serve_stock '{"port": 8123, "folder": DIR}'

Takes a JSON body and answers with one. Prints {"ready": true}, and stops when stdin ends.
"""

import json
import sys
from typing import Any

import ray
from ray import serve
from starlette.requests import Request


@serve.deployment
class Echo:
    """Reads the body and answers."""

    async def __call__(self, request: Request) -> dict[str, Any]:
        """One request."""
        body = await request.json()
        return {"id": "0", "model": body["model"], "choices": [{"index": 0, "text": "ok"}]}


def main() -> None:
    """Until stdin ends."""
    settings = json.loads(sys.argv[1])
    ray.init(num_cpus=2, include_dashboard=False, _temp_dir=settings["folder"])
    serve.start(http_options={"host": "127.0.0.1", "port": settings["port"]})
    serve.run(Echo.bind(), route_prefix="/")
    sys.stdout.write('{"ready": true}\n')
    sys.stdout.flush()
    sys.stdin.read()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
