"""A base model from the Hugging Face hub, by commit."""

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from raylora.errors import NotAuthorised, NotFound, Unreachable

_COMMIT = re.compile(r"[0-9a-f]{40}")
_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]


def resolve_commit(repo_id: str, revision: str | None, *, known: Sequence[str] = ()) -> str:
    """Return the commit of a revision (null: the default branch).

    A full commit needs no network. Without a revision and without a hub, the newest of `known`
    commits (those in the cache) is used. Raises Unreachable, NotFound or NotAuthorised.
    """
    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import HfApi  # 0.4 s, and a cached commit does not need it

    try:
        with _hub_errors(repo_id, revision):
            commit = HfApi().model_info(repo_id, revision=revision).sha
    except Unreachable:
        if revision is None and known:
            return known[0]
        raise
    assert commit is not None  # the hub names a commit for every model it has
    return commit


def download(repo_id: str, commit: str, into: Path, *, with_code: bool) -> None:
    """Copy weights (safetensors only), configs and tokenizer; Python files only `with_code`."""
    from huggingface_hub import snapshot_download

    patterns = [*_FILES, "*.py"] if with_code else _FILES
    with _hub_errors(repo_id, commit):
        snapshot_download(repo_id, revision=commit, local_dir=into, allow_patterns=patterns)
    if not any(into.glob("*.safetensors")):
        raise NotFound(
            f"model.id: {repo_id} at {commit} has no *.safetensors weights",
            hint="raylora reads no pickled weights; choose a repository with safetensors",
        )


def download_adapter(repo_id: str, commit: str, into: Path, files: Sequence[str]) -> None:
    """Copy the named files of an adapter, and nothing else. Raises as `download` does."""
    from huggingface_hub import snapshot_download

    with _hub_errors(repo_id, commit):
        snapshot_download(repo_id, revision=commit, local_dir=into, allow_patterns=list(files))
    shutil.rmtree(into / ".cache", ignore_errors=True)  # the hub package's own notes


@contextmanager
def _hub_errors(repo_id: str, revision: str | None) -> Iterator[None]:
    from huggingface_hub import errors

    # Of the HTTP client that this release of the hub's package uses: httpx in 1.x, httpx2 in 2.x.
    client_error: type[Exception] = errors.HTTPError  # pyright: ignore[reportPrivateImportUsage]
    where = f"{repo_id} at {revision}" if revision else repo_id
    try:
        yield
    except errors.GatedRepoError as error:
        raise NotAuthorised(
            f"the model hub refuses {where}: {error}",
            hint="accept the model's terms and set HF_TOKEN where the job runs",
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise NotFound(
            f"the model hub has no {where}",
            hint="check model.id and model.revision; a private model needs HF_TOKEN",
        ) from error
    except errors.HFValidationError as error:
        raise NotFound(f"model.id: {error}", hint="write OWNER/NAME") from error
    except (client_error, OSError) as error:  # HfHubHTTPError, OfflineModeIsEnabled among them
        raise Unreachable(
            f"the model hub does not answer for {where}: {error}",
            hint="check the network and HF_HUB_OFFLINE; a local copy is model.source=path",
        ) from error
