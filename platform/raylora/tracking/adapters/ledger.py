"""A log that any number of processes append to, and none can rewrite: the parameters of a run.

A parameter of an MLflow run is written once. The store's database holds (run, key) unique, so of
those that claim a key at the same time one gets it and the others are told, in SQLite in the
outputs folder and on a server alike. For aliases and tags there is nothing like it: the last one
wins.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from raylora.errors import RayloraError
from raylora.tracking.failures import raylora_errors

if TYPE_CHECKING:
    from mlflow.entities.model_registry import RegisteredModel
    from mlflow.tracking import MlflowClient

TAG = "raylora.ledger"
"""On a registered model: MLflow's id of the run that is its ledger."""
OF_TAG = "raylora.ledger_of"
"""On that run: the registered model's name."""
MAX_VALUE = 6000
"""MLflow's limit, beyond which it cuts."""


class Ledger:
    """The ledger of one registered model."""

    def __init__(self, client: "MlflowClient", mlflow_run_id: str) -> None:
        self.mlflow_run_id = mlflow_run_id
        self._client = client
        self._uri = client.tracking_uri

    def entries(self) -> Mapping[str, str]:
        """Everything that was claimed."""
        with raylora_errors(self._uri):
            return dict(self._client.get_run(self.mlflow_run_id).data.params)

    def claim(self, key: str, value: str) -> bool:
        """Write an entry; False where another process has written another value there."""
        assert len(value) <= MAX_VALUE, len(value)
        try:
            with raylora_errors(self._uri):
                self._client.log_param(self.mlflow_run_id, key, value, synchronous=True)
        except RayloraError:
            # A reply may be lost, and a refusal may have other reasons: what is stored decides.
            stored = self.entries().get(key)
            if stored is None:
                raise
            return stored == value
        return True

    def keep(self, content: Mapping[str, object], file: str) -> None:
        """Store a mapping as artifact."""
        with raylora_errors(self._uri):
            self._client.log_dict(self.mlflow_run_id, dict(content), file)


def ledger_of(client: "MlflowClient", model: "RegisteredModel") -> str:
    """MLflow's id of a model's ledger.

    One that was registered before there were ledgers is given one. Of two that do so at the same
    time both may write to their own in that moment; afterwards there is one.
    """
    if ledger := model.tags.get(TAG):
        return ledger
    (version,) = client.search_model_versions(f"name = '{model.name}'", max_results=1)
    experiment_id = client.get_run(version.run_id or "").info.experiment_id
    client.set_registered_model_tag(
        model.name, TAG, open_ledger(client, model.name, experiment_id)
    )
    return client.get_registered_model(model.name).tags[TAG]


def open_ledger(client: "MlflowClient", name: str, experiment_id: str) -> str:
    """A new run for the ledger of a registered model; MLflow's id."""
    run = client.create_run(experiment_id, run_name=f"{name} promotions", tags={OF_TAG: name})
    client.set_terminated(run.info.run_id)
    return run.info.run_id
