"""The cluster token: made for the local head, found for a remote one, sent as a bearer header."""

import os
import secrets
from pathlib import Path

from raylora.errors import NotAuthorised


def write_token(path: Path) -> None:
    """Write a new random token, readable by this user alone."""
    path.unlink(missing_ok=True)
    # O_EXCL with the mode: there is no moment at which the file exists and others may read it.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32))


def bearer(path: Path) -> dict[str, str]:
    """Return the headers that carry the token in `path`."""
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NotAuthorised(
            f"cannot read the cluster token {path}: {error}",
            hint="set RAY_AUTH_TOKEN_PATH to a file that holds the token",
        ) from error
    return _headers(token)


def ambient_bearer() -> dict[str, str]:
    """Return the headers for a cluster that is not ours, in Ray's own order of places.

    RAY_AUTH_TOKEN, then RAY_AUTH_TOKEN_PATH, then ~/.ray/auth_token; none of them gives no
    header, which is right for a cluster without token authentication.
    """
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return _headers(token)
    if path := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return bearer(Path(path))
    default = Path.home() / ".ray" / "auth_token"
    return bearer(default) if default.is_file() else {}


def _headers(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}
