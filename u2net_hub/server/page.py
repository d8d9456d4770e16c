"""The page /docs: what each route takes, with examples. It needs nothing from elsewhere."""

from __future__ import annotations

import re
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

router = APIRouter(include_in_schema=False)
_HOST = re.compile(r"[\w.:\[\]-]+", re.ASCII)


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """Answer with a page made from /openapi.json."""
    host = request.headers.get("host", "")
    base = f"{request.scope['scheme']}://{host if _HOST.fullmatch(host) else 'localhost:7000'}"
    schema = request.app.openapi()
    parts = [
        _route(method, path, route, base)
        for path, methods in schema["paths"].items()
        for method, route in methods.items()
    ]
    title = f"u2net-hub {escape(schema['info']['version'])}"
    return HTMLResponse(
        _PAGE.format(title=title, words=_words(schema["info"]["description"]), routes="".join(parts)),
        headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'"},
    )


def _route(method: str, path: str, route: dict[str, Any], base: str) -> str:
    words, _, example = str(route.get("description", "")).partition("Example: ")
    shown = [f"<h2><b>{method.upper()}</b> {escape(path)}</h2><p>{escape(route.get('summary', ''))}</p>"]
    shown.append(f"<p>{_words(words)}</p>")
    if example:
        line = example.strip().strip("`").replace("http://localhost:7000", base)
        shown.append(f"<pre>{escape(line)}</pre>")
    for content in route.get("requestBody", {}).get("content", {}).values():
        rows = [_field(name, each) for name, each in content["schema"]["properties"].items()]
        shown.append(f"<table>{''.join(rows)}</table>")
    return "".join(shown)


def _field(name: str, field: dict[str, Any]) -> str:
    default = field.get("default")
    shown = "" if default in (None, "") else f" <i>({escape(str(default))})</i>"
    return f"<tr><td><code>{escape(name)}</code>{shown}<td>{escape(field.get('description', ''))}"


def _words(text: str) -> str:
    pieces = escape(text, quote=False).split("`")
    return "".join(f"<code>{each}</code>" if i % 2 else each for i, each in enumerate(pieces))


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark"><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem }}
h2 {{ margin-top: 2.5rem; font-size: 1.1rem }}
pre {{ overflow: auto; padding: .7rem; border: 1px solid #8888 }}
td {{ vertical-align: top; padding: .1rem 1rem .1rem 0 }}
</style><h1>{title}</h1><p>{words} The same for programs: <a href="openapi.json">openapi.json</a>.</p>{routes}
"""
