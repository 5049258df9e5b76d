"""The adapter registry: immutable versions in MLflow's model registry."""

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylora.errors import InvalidConfig, NotFound, Problem
from raylora.tracking.failures import raylora_errors
from raylora.tracking.location import shown
from raylora.tracking.nearest import not_found
from raylora.tracking.reference import Reference, parse, parse_name
from raylora.tracking.run import ADAPTER_TAG, RUN_ID_TAG, Run
from raylora.tracking.run_facts import moment
from raylora.tracking.store import connect
from raylora.tracking.version import (
    DIGEST_TAG,
    AdapterDetails,
    AdapterSummary,
    Version,
    directory_digest,
    same_files,
    version_of,
)

if TYPE_CHECKING:
    from mlflow.entities.model_registry import RegisteredModel

CHAMPION = "champion"
"""The alias that a name alone means, where it is set."""
ARTIFACT = "adapter"
"""Artifact folder of a run that its version is made of."""
KIND_TAG = "raylora.kind"
"""On a registered model: its versions are adapters and raylora registered them."""
PAGE = 100


class Registry:
    """The registry of one tracking store. Methods raise Unreachable and NotAuthorised too."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._client = connect(uri)

    def register(
        self, name: str, run: Run, adapter_dir: Path, *, tags: Mapping[str, str]
    ) -> Version:
        """Upload the directory as the run's artifact and make the name's next version of it.

        A run makes one version of a name: registering the same files again gives that version.
        """
        parse_name(name)
        digest = directory_digest(adapter_dir)
        with raylora_errors(self.uri):
            self._make_name(name)
            earlier = self._registered_from(name, run.mlflow_run_id)
            if earlier is not None:
                return same_files(earlier, digest)
            run.log_artifacts(adapter_dir, ARTIFACT)
            artifact_uri = self._client.get_run(run.mlflow_run_id).info.artifact_uri
            made = self._client.create_model_version(
                name,
                source=f"{artifact_uri}/{ARTIFACT}",
                run_id=run.mlflow_run_id,
                tags={**tags, RUN_ID_TAG: run.run_id, DIGEST_TAG: digest},
            )
        version = self._version(name, int(made.version))
        run.set_tags({ADAPTER_TAG: str(version)})
        return version

    def resolve(self, ref: str) -> Version:
        """The version that name, name@7 or name@alias means now; a name: its champion, or newest.

        Raises NotFound with the nearest names, InvalidConfig for what is no reference.
        """
        wanted = parse(ref)
        model = self._model(wanted.name)
        return self._version(wanted.name, wanted.version or _pointed_at(model, wanted))

    def aliases(self, name: str) -> dict[str, int]:
        """Where each alias of a name points."""
        return _aliases(self._model(parse_name(name)))

    def show(self, ref: str) -> AdapterDetails:
        """The version that a reference means, its files, and the other versions."""
        version = self.resolve(ref)
        with raylora_errors(self.uri):
            files = dict(self._files(version.mlflow_run_id, ARTIFACT))
        return AdapterDetails(
            version, self._numbers(version.name), self.aliases(version.name), files
        )

    def download(self, version: Version, cache_dir: Path) -> Path:
        """A local copy of the version's files in cache_dir; safe when several processes race.

        The folder is named after the store, the version and its run, so a store that was deleted
        and made anew never finds an old copy. Raises InvalidAdapter where the files are not those
        that were registered.
        """
        identity = f"{self.uri} {version} {version.mlflow_run_id} {version.created.isoformat()}"
        key = hashlib.sha256(identity.encode()).hexdigest()[:16]
        final = cache_dir / version.name / f"{version.version}-{key}"
        if final.is_dir():
            return final
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=final.parent, prefix=".fetch-") as folder:
            fetched = self._fetch(version, Path(folder))
            same_files(version, directory_digest(fetched))
            # A rename onto a filled folder fails: then another process was first.
            with suppress(OSError):
                fetched.rename(final)
        return final

    def set_alias(self, version: Version, alias: str, record: Mapping[str, str]) -> None:
        """Point an alias at a version and tag it with the record; only promotion calls this."""
        with raylora_errors(self.uri):
            self._client.set_registered_model_alias(version.name, alias, str(version.version))
            for key, value in record.items():
                self._client.set_model_version_tag(version.name, str(version.version), key, value)

    def list(self) -> Sequence[AdapterSummary]:
        """Every adapter's name with its newest version, sorted by name."""
        with raylora_errors(self.uri):
            models = list(
                _pages(self._client.search_registered_models, f"tags.`{KIND_TAG}` = 'adapter'")
            )
        return [
            AdapterSummary(
                model.name, _newest(model), _aliases(model), moment(model.last_updated_timestamp)
            )
            for model in sorted(models, key=lambda model: model.name)
        ]

    def _make_name(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name, tags={KIND_TAG: "adapter"})
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            if KIND_TAG not in self._client.get_registered_model(name).tags:
                raise _taken(name, self.uri) from error

    def _registered_from(self, name: str, mlflow_run_id: str) -> Version | None:
        found = self._client.search_model_versions(
            f"name = '{name}' and run_id = '{mlflow_run_id}'"
        )
        return version_of(found[0]) if found else None

    def _model(self, name: str) -> "RegisteredModel":
        try:
            with raylora_errors(self.uri):
                return self._client.get_registered_model(name)
        except NotFound as error:
            known = [summary.name for summary in self.list()]
            raise not_found("adapter", name, known, f"in {shown(self.uri)}") from error

    def _version(self, name: str, number: int) -> Version:
        try:
            with raylora_errors(self.uri):
                return version_of(self._client.get_model_version(name, str(number)))
        except NotFound as error:
            known = [f"{name}@{n}" for n in reversed(self._numbers(name))]
            raise not_found("version", f"{name}@{number}", known) from error

    def _numbers(self, name: str) -> "Sequence[int]":
        with raylora_errors(self.uri):
            found = _pages(self._client.search_model_versions, f"name = '{name}'")
            return sorted(int(version.version) for version in found)

    def _files(self, mlflow_run_id: str, path: str) -> Iterator[tuple[str, int]]:
        for item in self._client.list_artifacts(mlflow_run_id, path):
            if item.is_dir:
                yield from self._files(mlflow_run_id, item.path)
            else:
                yield item.path.removeprefix(f"{ARTIFACT}/"), int(item.file_size or 0)

    def _fetch(self, version: Version, folder: Path) -> Path:
        with raylora_errors(self.uri):
            from mlflow.artifacts import download_artifacts

            return Path(
                download_artifacts(
                    artifact_uri=version.source, dst_path=str(folder), tracking_uri=self.uri
                )
            )


def _pointed_at(model: "RegisteredModel", wanted: Reference) -> int:
    aliases = _aliases(model)
    if wanted.alias is None:
        return aliases.get(CHAMPION) or _newest(model)
    if wanted.alias not in aliases:
        raise not_found("alias", str(wanted), [f"{model.name}@{alias}" for alias in aliases])
    return aliases[wanted.alias]


def _newest(model: "RegisteredModel") -> int:
    """MLflow gives the newest version of each of its old stages; 0 where all were deleted."""
    return max((int(version.version) for version in model.latest_versions or ()), default=0)


def _aliases(model: "RegisteredModel") -> dict[str, int]:
    return {alias: int(number) for alias, number in sorted(model.aliases.items())}


def _taken(name: str, uri: str) -> InvalidConfig:
    message = f"{shown(uri)} has a registered model {name!r} that is not raylora's"
    return InvalidConfig([Problem("tracking.register_as", message, "Write a name that is free")])


def _pages(search: Callable[..., Any], query: str) -> Iterator[Any]:
    token: str | None = None
    while token != "":
        page = search(query, max_results=PAGE, page_token=token)
        yield from page
        token = page.token or ""
