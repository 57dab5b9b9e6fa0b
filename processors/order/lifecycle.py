"""docs/lifecycle.md, made of the rules themselves: `python -m processors.order.lifecycle [--check] FILE`.

A sample order is brought into each state by commands, as in life (`sample`); then every command is tried on it, and
what `decide` says is written down: the events, or the refusal's type.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from processors.order import sample
from processors.order.importing import Past
from schemas.policy import Policy, load
from schemas.replies import Rejection

HEAD = """# The life of an order

Made by `make schemas` of the rules themselves (`python -m processors.order.lifecycle`); don't edit it. Each command is
tried on a sample order in each state, and this is what `decide` says: the events (without their `Order`), `=` where
there is nothing to do (a repeat, or a fact that came too late), or in *italics* the stable `type` of the refusal. What
the clock tells is tried when it is due.

The statuses are the epic's, and REFUND_REQUESTED. Inside of them, what else is the case matters as well:
"""

NOTHING = "="


def cells(policy: Policy) -> dict[str, dict[str, str]]:
    """What the row is called → state → what the command leads to."""
    stories = sample.told(policy)
    draft = stories["DRAFT"].now
    return {
        tried.name: {state: _said(sample.answer(tried, story, draft)) for state, story in stories.items()}
        for rows in sample.COMMANDS.values()
        for tried in rows
    }


def render() -> str:
    """The whole page."""
    found = cells(load())
    parts = [HEAD, *(f"- **{name}**: {meaning}" for name, (meaning, _) in sample.STATES.items())]
    for area, rows in sample.COMMANDS.items():
        parts += ["", f"## {area}", ""]
        for tried in rows:
            parts += _table(tried.name, found[tried.name])
    return "\n".join(parts) + "\n"


def _said(decision: Any) -> str:
    if isinstance(decision, Rejection):
        return f"*{decision.type}*"
    events = [event.payload if isinstance(event, Past) else event for event in decision]
    return ", ".join(type(event).__name__.removeprefix("Order") for event in events) or NOTHING


def _table(name: str, answers: dict[str, str]) -> Iterable[str]:
    """States with the same answer stand together; what most of them answer comes last."""
    together: dict[str, list[str]] = {}
    for state, said in answers.items():
        together.setdefault(said, []).append(state)
    yield f"### {name}"
    yield ""
    if name in sample.NEVER:
        yield f"It never leads to anything: {sample.NEVER[name]}."
        yield ""
    yield "| in | leads to |"
    yield "|---|---|"
    most = next((said for said, states in together.items() if 2 * len(states) > len(answers)), None)
    for said, states in together.items():
        if said != most:
            yield f"| {'; '.join(states)} | {said} |"
    if most is not None:
        yield f"| any other | {most} |"
    yield ""


def main(arguments: list[str]) -> int:
    """Write the page; with --check only say whether it is fresh."""
    check, path = "--check" in arguments, Path(arguments[-1])
    page = render()
    if not check:
        path.write_text(page)
        return 0
    if path.exists() and path.read_text() == page:
        return 0
    print(f"{path} is not what the rules say: run `make schemas`")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
