"""Finding runs in the tracking store by their ids and tags."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from raylora.tracking.nearest import not_found
from raylora.tracking.run import RUN_ID_TAG

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowEntity
    from mlflow.tracking import MlflowClient

MANY = 1_000
"""Experiments and runs looked at where all are meant; one page of MLflow's."""


def experiment_names(client: "MlflowClient") -> dict[str, str]:
    """Names of the experiments by MLflow's ids."""
    return {e.experiment_id: e.name for e in client.search_experiments(max_results=MANY)}


def has(tag: str) -> str:
    """The query for runs that have a tag."""
    return f"tags.`{tag}` LIKE '%'"


def find_run(
    client: "MlflowClient",
    run_id: str,
    names: Mapping[str, str],
    *,
    kind: str = "run",
    tag: str | None = None,
) -> "MlflowEntity":
    """The run with this id of raylora's or MLflow's, among those that have the tag.

    Raises NotFound with the nearest ids.
    """
    ids, having = list(names), f" AND {has(tag)}" if tag else ""
    for query in (f"tags.`{RUN_ID_TAG}` = '{run_id}'", f"attributes.run_id = '{run_id}'"):
        found = client.search_runs(ids, query + having, max_results=1)
        if found:
            return found[0]
    known = client.search_runs(ids, has(tag or RUN_ID_TAG), max_results=MANY)
    raise not_found(kind, run_id, [entity.data.tags[RUN_ID_TAG] for entity in known])


def every_run(
    client: "MlflowClient", experiment_ids: Iterable[str], query: str
) -> Iterator["MlflowEntity"]:
    """All runs that a query finds, the oldest first."""
    ids, token = list(experiment_ids), None
    while True:
        page = client.search_runs(
            ids,
            query,
            max_results=MANY,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        yield from page
        token = page.token
        if not token:
            return
