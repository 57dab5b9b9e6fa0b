"""Messages to customers as texts: Jinja2 over `templates/`. A language is one YAML file of words.

Whatever a customer or a product is called stays text: HTML is escaped, templates run in a sandbox, and a word that is
missing is an error rather than a gap.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from jinja2 import StrictUndefined, Template
from jinja2.sandbox import SandboxedEnvironment

from schemas.notification import SendNotice

FALLBACK = "en"

_FOLDER = files(__package__) / "templates"
_TEXT = SandboxedEnvironment(
    undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False
)
_HTML = SandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=True)
# Kinds whose message is about the order as a whole, and those that speak of an arrival still to come.
_WITH_TOTAL = frozenset({"order_confirmation", "order_changed"})
_WITH_ETA = frozenset({"order_confirmation", "order_changed", "processing", "shipped", "delivery_failed"})


@dataclass(frozen=True)
class Rendered:
    """A message in one language. `short` fits an SMS or a push: subject and tracking link."""

    language: str
    subject: str
    text: str
    html: str
    short: str


@cache
def languages() -> frozenset[str]:
    """Two-letter codes of the languages that there are words in."""
    return frozenset(file.name.removesuffix(".yaml") for file in _FOLDER.iterdir() if file.name.endswith(".yaml"))


def render(notice: SendNotice, language: str) -> Rendered:
    """The message in this language, or in English when there are no words in it. LookupError when no template has
    this kind."""
    language = language if language in languages() else FALLBACK
    words = _words(language)
    kind = words["kinds"].get(notice.kind)
    if kind is None:
        raise LookupError(f"there are no words for a message of kind {notice.kind!r}")
    # A reason that staff wrote in its own words is said as it is.
    reason = words["reasons"].get(notice.reason or "", notice.reason or "")
    facts = {"notice": notice, "words": words, "language": language, "reason": reason}
    subject = " ".join(_template(_TEXT, kind["subject"]).render(facts).split())
    facts |= {
        "subject": subject,
        "body": _template(_TEXT, kind["body"]).render(facts),
        "show_total": notice.kind in _WITH_TOTAL,
        "show_eta": notice.kind in _WITH_ETA,
    }
    return Rendered(
        language=language,
        subject=subject,
        text=_template(_TEXT, _layout("layout.txt.j2")).render(facts),
        html=_template(_HTML, _layout("layout.html.j2")).render(facts),
        short=f"{subject} {notice.tracking_url}" if notice.tracking_url else subject,
    )


@cache
def _words(language: str) -> dict[str, Any]:
    words: dict[str, Any] = yaml.safe_load((_FOLDER / f"{language}.yaml").read_text(encoding="utf-8"))
    return words


@cache
def _template(environment: SandboxedEnvironment, source: str) -> Template:
    return environment.from_string(source)


@cache
def _layout(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
