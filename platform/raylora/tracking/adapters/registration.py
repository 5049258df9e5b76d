"""From an adapter beside a run to a version of a name, when all before it is stored."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from raylora.errors import InvalidAdapter, PromotionConflict, PromotionRefused
from raylora.tracking.adapters.promotion import promote
from raylora.tracking.adapters.registry import CHAMPION, Registry
from raylora.tracking.adapters.version import directory_digest
from raylora.tracking.failures import raylora_errors
from raylora.tracking.run import Run
from raylora.tracking.spooling.records import Registered, Registration
from raylora.tracking.sweep_tags import PARENT

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


def make_version(
    client: "MlflowClient", run: Run, wanted: Registration, directory: Path
) -> Registered:
    """Register what has been checked, tell the run above of it, and move aliases to it.

    Asked for twice, it gives the same version. Raises InvalidAdapter where the files are not those
    that were checked.
    """
    if not directory.is_dir() or directory_digest(directory) != wanted.digest:
        raise InvalidAdapter(
            f"{directory} is not registered: it is not what it was when it was checked",
            hint="`raylora submit` trains it again",
        )
    registry = Registry(client.tracking_uri, client)
    version = registry.register(wanted.name, run, directory, tags=wanted.tags)
    if wanted.parent_tag:
        _tell_parent(client, run, wanted.parent_tag, str(version))
    notices = list(_moved(registry, str(version), wanted))
    aliases = registry.aliases(version.name)
    pointing = [alias for alias, number in aliases.items() if number == version.version]
    pointing.sort(key=lambda alias: (alias != CHAMPION, alias))
    return Registered(str(version), tuple(pointing), tuple(notices))


def _tell_parent(client: "MlflowClient", run: Run, tag: str, version: str) -> None:
    with raylora_errors(client.tracking_uri):
        parent = client.get_run(run.mlflow_run_id).data.tags.get(PARENT)
        if parent is not None:
            client.set_tag(parent, tag, version)


def _moved(registry: Registry, version: str, wanted: Registration) -> Iterator[str]:
    """Why an alias stays where it is: a version that its gate holds back is registered still."""
    asked = [CHAMPION if wanted.champion else None, wanted.alias]
    for alias in dict.fromkeys(filter(None, asked)):
        try:
            promote(registry, version, alias, only_if_unset=alias != wanted.alias)
        except (PromotionRefused, PromotionConflict) as error:
            yield error.message
