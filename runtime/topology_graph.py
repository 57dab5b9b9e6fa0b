"""Draws topology.yaml as a Mermaid flowchart, and keeps the drawings in the docs fresh."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from runtime.topology import EVERYONE, Process, Topic, Topology, TopologyError

BEGIN = "<!-- topology:begin -->"
END = "<!-- topology:end -->"

_STYLES = """\
  classDef topic fill:#eef2ff,stroke:#6366f1,color:#1e1b4b
  classDef public fill:#c7d2fe,stroke:#4338ca,stroke-width:2px,color:#1e1b4b
  classDef coming fill:#f8fafc,stroke:#94a3b8,stroke-dasharray:4,color:#475569
  classDef process fill:#fef3c7,stroke:#d97706,color:#451a03
  classDef service fill:#dcfce7,stroke:#16a34a,color:#052e16"""


def render(topology: Topology) -> str:
    """The pipeline, in the file's order: the same topology gives the same text."""
    needed = {service for process in topology.processes() for service in process.needs}
    lines = ["flowchart LR"]
    lines += [_topic(topic) for topic in topology.topics.values()]
    for processes, shape in (
        (topology.processors, '[["{}"]]'),
        (topology.workers, '{{{{"{}"}}}}'),
        (topology.sinks, '[/"{}"\\]'),
        (topology.gateways, '>"{}"]'),
    ):
        lines += [f"  {_id('p', name)}{shape.format(name)}:::process" for name in processes]
    lines += [f'  {_id("s", name)}[("{name}")]:::service' for name in topology.services if name in needed]
    for process in topology.processes():
        lines += _edges(process)
    lines += _everyone(topology)
    return "\n".join([*lines, _STYLES])


def block(topology: Topology) -> str:
    """What stands between the markers in a Markdown file."""
    return f"```mermaid\n{render(topology)}\n```"


def fresh(path: Path, topology: Topology) -> bool:
    """Whether the drawing in this file is today's. TopologyError when it has no place for one."""
    return _split(path)[1].strip() == block(topology)


def write(path: Path, topology: Topology) -> bool:
    """Renew the drawing in this file; whether that changed it. TopologyError when it has no place for one."""
    before, found, after = _split(path)
    if found.strip() == block(topology):
        return False
    path.write_text(f"{before}{BEGIN}\n{block(topology)}\n{END}{after}", encoding="utf-8")
    return True


def drawings(root: Path) -> list[Path]:
    """The Markdown files of a checkout that have a place for the drawing."""
    files = [*root.glob("*.md"), *(root / "docs").rglob("*.md")]
    return sorted(path for path in files if BEGIN in path.read_text(encoding="utf-8"))


def _split(path: Path) -> tuple[str, str, str]:
    try:
        before, rest = path.read_text(encoding="utf-8").split(BEGIN)
        found, after = rest.split(END)
    except OSError as error:
        raise TopologyError(f"{path} can't be read: {error.strerror}.") from error
    except ValueError as error:
        raise TopologyError(f"{path} needs the lines {BEGIN} and {END}, once each, around the drawing.") from error
    return before, found, after


def _topic(topic: Topic) -> str:
    style = "coming" if topic.coming else "public" if topic.public else "topic"
    return f'  {_id("t", topic.name)}(["{topic.name}"]):::{style}'


def _edges(process: Process) -> Iterator[str]:
    own = _id("p", process.name)
    for topic in process.inputs:
        yield f"  {_id('t', topic)} --> {own}"
    for topic in process.writes:
        yield f"  {own} --> {_id('t', topic)}"
    for service in process.needs:
        yield f"  {own} <-.-> {_id('s', service)}"


def _everyone(topology: Topology) -> Iterator[str]:
    """One arrow for what every process may write, so that the picture stays one."""
    shared = [topic.name for topic in topology.topics.values() if topic.writers == EVERYONE]
    if shared:
        yield '  everyone["every process"]:::process'
    for name in shared:
        yield f"  everyone -.-> {_id('t', name)}"


def _id(kind: str, name: str) -> str:
    return f"{kind}_{name.replace('.', '_').replace('-', '_')}"
