"""From what a spec names as subjects to adapters on this machine's disk."""

from pathlib import Path

from raylora.config.evaluate_spec import BASE, EvaluateSpec
from raylora.config.places import cache
from raylora.errors import InvalidConfig, NotFound, Problem
from raylora.jobs.evaluate.subject import THE_BASE, Subject
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.adapters.version import DIGEST_TAG


def resolve(spec: EvaluateSpec, uri: str) -> list[Subject]:
    """Find every subject and fetch its files; a reference becomes the version that it means now.

    Raises NotFound with the nearest names, InvalidAdapter, InvalidConfig for two names of one
    version, Unreachable.
    """
    registry: Registry | None = None
    found: dict[str, Subject] = {}
    for name in spec.subjects:
        if name == BASE:
            subject = THE_BASE
        elif "/" in name:
            subject = _of_folder(name)
        else:
            registry = registry or Registry(uri)
            subject = _of_version(registry, name)
        if subject.label in found:
            raise _same(found[subject.label], subject)
        found[subject.label] = subject
    return list(found.values())


def _of_folder(name: str) -> Subject:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise NotFound(
            f"subjects: there is no folder {name}",
            hint="a name with a / is the folder of an adapter, on a disk that the cluster reads",
        )
    return Subject(name, name, folder.absolute())


def _of_version(registry: Registry, name: str) -> Subject:
    version = registry.resolve(name)
    directory = registry.download(version, cache() / "adapters")
    return Subject(
        str(version),
        name,
        directory,
        is_registered=True,
        run_id=version.run_id,
        digest=version.tags.get(DIGEST_TAG),
    )


def _same(first: Subject, second: Subject) -> InvalidConfig:
    return InvalidConfig(
        [
            Problem(
                "subjects",
                f"{first.asked_as} and {second.asked_as} are both {first.label} now",
                "Name it once",
            )
        ]
    )
