"""Ways to ask the endpoint."""

from asyncio import run

import httpx
import pytest
from tests.serve.http.asking import request


@pytest.fixture
def call(endpoint):
    """POST a body to a route; the answer."""

    def post(path: str, body=None, **extra) -> httpx.Response:
        return run(request(endpoint, "POST", path, json=body, **extra))

    return post


@pytest.fixture
def get(endpoint):
    def fetch(path: str) -> httpx.Response:
        return run(request(endpoint, "GET", path))

    return fetch
