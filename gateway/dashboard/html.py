"""Pages out of the templates, and the files that go with them, all from here: the policy that each page carries
forbids the browser any other host and any script or style inside of a page."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`: with it a browser would hide from us, too, which page a form was sent by.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_STATIC = {
    "dashboard.css": "text/css",
    "dashboard.js": "text/javascript",
    "sign-in.js": "text/javascript",
    "vendor/chart.umd.min.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    content: bytes
    media_type: str
    version: str
    """Changes with the content. Part of the address, so that a browser may keep the file for ever."""


@cache
def static_files() -> dict[str, StaticFile]:
    folder = files("gateway") / "static"
    found = {name: (folder / name).read_bytes() for name in _STATIC}
    return {
        name: StaticFile(content, _STATIC[name], hashlib.sha256(content).hexdigest()[:12])
        for name, content in found.items()
    }


def static_file(name: str, version: str) -> Response | None:
    """The file, or None when there is none of this name."""
    found = static_files().get(name)
    if found is None:
        return None
    # An old page may ask for an old version: it gets the present one, but is not to keep it under that address.
    kept = "public, max-age=31536000, immutable" if version == found.version else "no-cache"
    headers = {"Cache-Control": kept, "X-Content-Type-Options": "nosniff"}
    return Response(found.content, media_type=found.media_type, headers=headers)


def page(template: str, status: int = 200, /, **values: Any) -> HTMLResponse:
    return HTMLResponse(_templates().get_template(template).render(values), status, HEADERS)


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("gateway.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals["static"] = lambda name: f"/dashboard/static/{name}?v={static_files()[name].version}"
    return templates
