"""From an adapter beside a run to a version of a name, when all before it is stored."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from raylora.errors import InvalidAdapter, PromotionConflict, PromotionRefused
from raylora.tracking.adapters.promotion import promote
from raylora.tracking.adapters.registry import CHAMPION, Registry
from raylora.tracking.adapters.version import directory_digest
from raylora.tracking.run import Run
from raylora.tracking.spooling.records import Registered, Registration

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


def make_version(
    client: "MlflowClient", run: Run, wanted: Registration, directory: Path
) -> Registered:
    """Register what a job has checked; the first version of a name becomes its champion.

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
    notices = list(_moved(registry, str(version), wanted.alias))
    aliases = registry.aliases(version.name)
    pointing = [alias for alias, number in aliases.items() if number == version.version]
    pointing.sort(key=lambda alias: (alias != CHAMPION, alias))
    return Registered(str(version), tuple(pointing), tuple(notices))


def _moved(registry: Registry, version: str, alias: str | None) -> Iterator[str]:
    """Why an alias stays where it is: a version that its gate holds back is registered still."""
    for wanted in dict.fromkeys([CHAMPION, alias or CHAMPION]):
        try:
            promote(registry, version, wanted, only_if_unset=wanted != alias)
        except (PromotionRefused, PromotionConflict) as error:
            yield error.message
