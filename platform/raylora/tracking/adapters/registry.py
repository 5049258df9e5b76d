"""The adapter registry: immutable versions in MLflow's model registry."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylora.config.credentials import shown
from raylora.errors import InvalidAdapter, InvalidConfig, NotFound, Problem
from raylora.tracking.adapters import ledger, version_files
from raylora.tracking.adapters.ledger import Ledger
from raylora.tracking.adapters.reference import Reference, parse, parse_name
from raylora.tracking.adapters.version import (
    DIGEST_TAG,
    AdapterDetails,
    AdapterSummary,
    Version,
    directory_digest,
    same_files,
    version_of,
)
from raylora.tracking.adapters.version_files import ARTIFACT
from raylora.tracking.failures import NOT_FOUND, raylora_errors
from raylora.tracking.nearest import not_found
from raylora.tracking.run import ADAPTER_TAG, RUN_ID_TAG, Run
from raylora.tracking.run_facts import moment
from raylora.tracking.store import connect

if TYPE_CHECKING:
    from mlflow.entities.model_registry import RegisteredModel
    from mlflow.tracking import MlflowClient

CHAMPION = "champion"
"""The alias that a name alone means, where it is set."""
KIND_TAG = "raylora.kind"
"""On a registered model: its versions are adapters and raylora registered them."""
PAGE = 100


class Registry:
    """The registry of one tracking store. Methods raise Unreachable and NotAuthorised too."""

    def __init__(self, uri: str, client: "MlflowClient | None" = None) -> None:
        self.uri = uri
        self._client = client or connect(uri)

    def register(
        self, name: str, run: Run, adapter_dir: Path, *, tags: Mapping[str, str]
    ) -> Version:
        """Upload the directory as the run's artifact and make the name's next version of it.

        A run makes one version of a name: registering the same files again gives that version.
        """
        parse_name(name)
        digest = directory_digest(adapter_dir)
        with raylora_errors(self.uri):
            self._make_name(name, run.mlflow_run_id)
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
        number = wanted.version or _pointed_at(self._model(wanted.name), wanted)
        return self._version(wanted.name, number)

    def aliases(self, name: str) -> dict[str, int]:
        """Where each alias of a name points."""
        return _aliases(self._model(parse_name(name)))

    def show(self, ref: str) -> AdapterDetails:
        """The version that a reference means, its files, and the other versions."""
        version = self.resolve(ref)
        return AdapterDetails(
            version,
            self.numbers(version.name),
            self.aliases(version.name),
            version_files.sizes(self._client, version.mlflow_run_id),
        )

    def download(self, version: Version, cache_dir: Path) -> Path:
        """A local copy of the version's files in cache_dir; safe when several processes race.

        Raises InvalidAdapter where the files are not those that were registered.
        """
        return version_files.download(self._client, version, cache_dir)

    def fault(self, version: Version) -> str | None:
        """What is wrong with the version's files in the store; None where they are unchanged."""
        try:
            version_files.check(self._client, version)
        except (InvalidAdapter, NotFound, OSError) as error:
            return str(error)
        return None

    def read(self, version: Version, file: str) -> str | None:
        """A text among the artifacts of the version's run; None where there is none."""
        return version_files.read(self._client, version, file)

    def metrics(self, version: Version) -> Mapping[str, float]:
        """Last values of the metrics of the version's run; none where that is gone."""
        try:
            with raylora_errors(self.uri):
                return dict(self._client.get_run(version.mlflow_run_id).data.metrics)
        except NotFound:
            return {}

    def ledger(self, name: str) -> Ledger:
        """Where the decisions about a name's aliases are written."""
        model = self._model(name)
        with raylora_errors(self.uri):
            return Ledger(self._client, ledger.ledger_of(self._client, model))

    def point(self, name: str, alias: str, version: int | None) -> None:
        """Let an alias point at a version, or at none; only promotion calls this."""
        with raylora_errors(self.uri):
            if version is None:
                self._client.delete_registered_model_alias(name, alias)
            else:
                self._client.set_registered_model_alias(name, alias, str(version))

    def tag(self, name: str, version: int, tags: Mapping[str, str]) -> None:
        """Set tags of a version, over earlier ones of the same key."""
        with raylora_errors(self.uri):
            for key, value in tags.items():
                self._client.set_model_version_tag(name, str(version), key, value)

    def delete(self, version: Version) -> None:
        """Take a version out of the registry; its number is not given again, its run stays."""
        with raylora_errors(self.uri):
            self._client.delete_model_version(version.name, str(version.version))

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

    def numbers(self, name: str) -> "Sequence[int]":
        """The versions that a name has, the oldest first."""
        with raylora_errors(self.uri):
            found = _pages(self._client.search_model_versions, f"name = '{name}'")
            return sorted(int(version.version) for version in found)

    def _make_name(self, name: str, mlflow_run_id: str) -> None:
        """Have the registered model, made with its ledger in one step: names are unique."""
        from mlflow.exceptions import MlflowException

        try:
            model = self._client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code not in NOT_FOUND:
                raise
            experiment_id = self._client.get_run(mlflow_run_id).info.experiment_id
            opened = ledger.open_ledger(self._client, name, experiment_id)
            try:
                self._client.create_registered_model(
                    name, tags={KIND_TAG: "adapter", ledger.TAG: opened}
                )
            except MlflowException as error:
                self._client.delete_run(opened)
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
        else:
            if KIND_TAG not in model.tags:
                raise _taken(name, self.uri)

    def _registered_from(self, name: str, mlflow_run_id: str) -> Version | None:
        found = self._client.search_model_versions(
            f"name = '{name}' and run_id = '{mlflow_run_id}'"
        )
        return version_of(found[0]) if found else None

    def _model(self, name: str) -> "RegisteredModel":
        try:
            with raylora_errors(self.uri):
                model = self._client.get_registered_model(name)
        except NotFound:
            model = None
        # A registered model of other tools has no adapters in it.
        if model is None or KIND_TAG not in model.tags:
            known = [summary.name for summary in self.list()]
            raise not_found("adapter", name, known, f"in {shown(self.uri)}")
        return model

    def _version(self, name: str, number: int) -> Version:
        try:
            with raylora_errors(self.uri):
                return version_of(self._client.get_model_version(name, str(number)))
        except NotFound as error:
            self._model(name)
            known = [f"{name}@{n}" for n in reversed(self.numbers(name))]
            raise not_found("version", f"{name}@{number}", known) from error


def _pointed_at(model: "RegisteredModel", wanted: Reference) -> int:
    aliases = _aliases(model)
    if wanted.alias is None:
        if not model.latest_versions:
            raise NotFound(
                f"there is no version of {model.name!r}",
                hint="all were deleted; `raylora submit` and `raylora adapters import` make one",
            )
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
