"""The routes: OpenAI's API and what raylora adds to it."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from raylora import __version__
from raylora.serve.edge.caller import caller_of, permitted
from raylora.serve.edge.edge import Edge
from raylora.serve.http import adapter_routes, api_errors, generation
from raylora.serve.http.endpoint import Endpoint
from raylora.serve.http.listings import ModelCard, model_card, model_cards


def create_app(endpoint: Endpoint, edge: Edge | None = None) -> FastAPI:
    """The ASGI application of one replica; without an edge it is open to all who reach it."""
    app = FastAPI(title="raylora", version=__version__)
    api_errors.install(app)
    generation.add(app, endpoint)  # first: its middleware is to be the innermost
    (edge or Edge()).surround(app, endpoint)
    _add_listings(app, endpoint)
    adapter_routes.add(app, endpoint)
    return app


def _add_listings(app: FastAPI, endpoint: Endpoint) -> None:
    @app.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        key = caller_of(request).key
        cards = [card for card in await model_cards(endpoint) if key.may_use(card.id)]
        return {"object": "list", "data": cards}

    @app.get("/v1/models/{model}")
    async def model(model: str, request: Request) -> ModelCard:
        key = await permitted(caller_of(request), model, endpoint.resolve)
        return model_card(endpoint, model, key)

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        if endpoint.engine.failure is None:
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "the engine has failed"}, status_code=503)
