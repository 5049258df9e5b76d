"""Routes whose requests go to every replica, and what their answers are together."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from http import HTTPStatus

from raylora.serve.ingress import metrics_text
from raylora.serve.ingress.link import Piece

ADAPTERS, ROUTES, METRICS = "/v1/adapters", "/v1/routes", "/metrics"
INGRESS = "ingress"
"""In the place of a replica's name."""
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"


def reaches_all(method: str, path: str) -> bool:
    """Whether a request is about the state of all replicas."""
    if method == "POST":
        return path in (ADAPTERS, LOAD, UNLOAD)
    return (method == "GET" and path in (ADAPTERS, ROUTES, METRICS)) or (
        method == "DELETE" and path.startswith(f"{ADAPTERS}/")
    )


def unloads(method: str, path: str) -> bool:
    """Whether it is done where one replica did it and no other one held the adapter."""
    return method == "DELETE" or path == UNLOAD


def merged(
    answers: Mapping[str, Piece], own_metrics: Callable[[], str], *, unloading: bool
) -> Piece:
    """One answer of all, by replica: the first refusal; else lists put together, or the first.

    own_metrics: the ingress's, which stand beside those of the replicas.
    unloading: a 404 is no refusal, and the answer only where all say it.
    """
    ordered = [answers[replica] for replica in sorted(answers)]
    if unloading:
        ordered = [each for each in ordered if each.status != HTTPStatus.NOT_FOUND] or ordered
    refused = next((answer for answer in ordered if answer.status >= 400), None)
    if refused is not None:
        return refused
    whole = ordered[0]
    if (b"content-type", metrics_text.CONTENT_TYPE.encode()) in whole.headers:
        texts = {replica: answer.body.decode() for replica, answer in answers.items()}
        texts[INGRESS] = own_metrics()
        return _with_body(whole, metrics_text.merged(texts).encode())
    lists = {replica: _listed(answers[replica].body) for replica in sorted(answers)}
    if any(entries is None for entries in lists.values()):
        return whole
    document = json.loads(whole.body)
    document["data"] = [
        {**entry, "replica": replica}
        for replica, entries in lists.items()
        for entry in entries or ()
    ]
    return _with_body(whole, json.dumps(document, ensure_ascii=False).encode())


def _with_body(answer: Piece, body: bytes) -> Piece:
    headers = [pair for pair in answer.headers if pair[0] != b"content-length"]
    length = (b"content-length", str(len(body)).encode())
    return replace(answer, headers=[*headers, length], body=body)


def _listed(body: bytes) -> list[dict[str, object]] | None:
    """The entries of a list; None where the answer is none."""
    try:
        document = json.loads(body)
    except ValueError:
        return None
    return document["data"] if isinstance(document, dict) and "data" in document else None
