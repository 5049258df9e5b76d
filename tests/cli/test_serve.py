"""raylora serve: what it refuses and shows, without a cluster."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner

from raylora.cli.endpoint_start import refuse_other_endpoint
from raylora.cli.main import cli
from raylora.cluster.applications import Application, ApplicationState, ServeStatus
from raylora.config.serve_spec import ServeSpec
from raylora.errors import RayloraError

DETAILS: dict[str, Any] = {
    "controller_info": {"actor_id": "x"},
    "http_options": {"host": "127.0.0.1", "port": 9},
    "applications": {
        "raylora": {
            "status": "RUNNING",
            "message": "",
            "last_deployed_time_s": 1767225600.0,
            "deployments": {
                "endpoint": {"replicas": [{"state": "RUNNING"}, {"state": "STARTING"}]}
            },
        }
    },
}
NOTHING: dict[str, Any] = {"controller_info": {}, "http_options": None, "applications": {}}


def running(*apps: tuple[str, ApplicationState], port: int = 8000) -> ServeStatus:
    listed = tuple(Application(name, state, "", 1, None) for name, state in apps)
    return ServeStatus("127.0.0.1", port, listed)


@pytest.fixture
def serve(dashboard: Callable[..., str]):
    """Run `raylora serve ...` against a dashboard that has these Serve details."""

    def run(details: dict[str, Any], *arguments: str):
        def answer(method: str, path: str, token: str | None) -> tuple[int, Any]:
            version = {"version": "4", "ray_version": "2"}
            return 200, details if path.startswith("/api/serve") else version

        address = dashboard(answer)
        return CliRunner().invoke(cli, ["serve", *arguments, "--address", address])

    return run


def test_status_shows_applications_replicas_and_the_endpoint(serve):
    shown = json.loads(serve(DETAILS, "status", "-o", "json").stdout)
    assert shown["url"] == "http://127.0.0.1:9/v1"
    [application] = shown["applications"]
    assert (application["name"], application["state"]) == ("raylora", "RUNNING")
    assert application["replicas"] == 1
    assert shown["adapters"] is None
    result = serve(DETAILS, "status")
    assert "RUNNING" in result.stdout
    assert "RAYLORA_API_KEY" in result.stderr


def test_status_of_nothing_says_how_to_begin(serve):
    result = serve(NOTHING, "status")
    assert result.exit_code == 0
    assert "raylora serve up" in result.stderr


def test_down_of_nothing_is_no_error(serve):
    result = serve(NOTHING, "down", "-o", "json")
    assert json.loads(result.stdout) == {"stopped": []}


def test_down_of_another_name_names_those_there_are(serve):
    result = serve(DETAILS, "down", "other")
    assert result.exit_code == 5
    assert "raylora" in result.stderr


def test_a_free_or_own_address_is_taken():
    refuse_other_endpoint(ServeSpec(), ServeStatus(None, None, ()))
    refuse_other_endpoint(ServeSpec(), running(("raylora", ApplicationState.RUNNING)))
    refuse_other_endpoint(ServeSpec(), running(("old", ApplicationState.DELETING)))


@pytest.mark.parametrize(
    ("state", "named"),
    [
        (running(("raylora", ApplicationState.RUNNING), port=8001), "127.0.0.1:8001"),
        (running(("other", ApplicationState.RUNNING)), "other"),
    ],
)
def test_another_port_or_application_is_refused_by_name(state, named):
    with pytest.raises(RayloraError, match=named):
        refuse_other_endpoint(ServeSpec(), state)
