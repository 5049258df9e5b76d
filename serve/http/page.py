"""The page at `/`: one file of our own, and a policy that lets the browser load nothing else."""

import base64
import hashlib
import re
from importlib.resources import files

from fastapi import FastAPI
from fastapi.responses import Response

_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


def page() -> str:
    """The page's HTML."""
    return (files("raylora.serve.http") / "page.html").read_text(encoding="utf-8")


def policy(html: str) -> str:
    """Content-Security-Policy: the page's own script and style, by hash, and its own origin."""
    hashes = {"script": "", "style": ""}
    for kind, text in _INLINE.findall(html):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        hashes[kind] += f" 'sha256-{digest}'"
    return (
        f"default-src 'none'; script-src{hashes['script']}; style-src{hashes['style']}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


def add_page(app: FastAPI) -> None:
    """Serve it."""
    html = page()
    headers = {
        "Content-Security-Policy": policy(html),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }

    @app.get("/", include_in_schema=False)
    async def show() -> Response:
        return Response(html, media_type="text/html; charset=utf-8", headers=headers)
