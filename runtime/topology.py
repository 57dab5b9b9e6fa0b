"""topology.yaml, read and typed. It is what runs: nothing else names topics, groups or processes.

    topology = load()
    topology.topics["order.events"].retention
    topology.instances("order", "embedded")

What belongs together lies in `topology_check` (does it fit together?), `topology_lock` (is its state still found?),
`topology_apply` (make it so on a broker) and `topology_graph` (draw it).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from runtime.errors import UserError

Profile = Literal["embedded", "production"]
"""How large: a laptop, or a cluster."""

History = Literal["each", "end", "none"]
"""Of an imported order: each event, only the last one, which carries the whole order, or none at all."""

OPERATOR = "oms-cli"
"""The `oms` command in a person's hands: the only reader and writer of topics that is no process of ours."""

EVERYONE = "everyone"
"""In `writers`: any process, and the operator."""

INGRESS = "order.commands"
"""What users wait behind; only gateways write it (rule 1)."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "y": 366 * 86_400}  # y: never shorter than on the calendar
_HERE = Path(__file__).resolve().parent


class TopologyError(UserError):
    """topology.yaml, its lock or the cluster is not as it must be; the message is for a person."""


def _seconds(text: Any) -> int:
    match = re.fullmatch(r"([1-9]\d*)([smhdy])", text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"a time is a number with one of s, m, h, d, y, such as 7d, not {text!r}")
    return int(match[1]) * _UNITS[match[2]]


def _target(text: Any) -> Any:
    if isinstance(text, str) and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", text):
        raise ValueError(f"an implementation is module:function, not {text!r}")
    return text


Seconds = Annotated[int, BeforeValidator(_seconds)]
Target = Annotated[str, BeforeValidator(_target)]
PerProfile = dict[Profile, Annotated[int, Field(ge=1)]]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Topic(_Strict):
    """A topic. It is kept for `retention` seconds, or, when `compacted` (retention None), the newest of each key."""

    name: str
    speaks: str = Field(description="the family in schemas.base.FAMILIES of all its messages")
    key: str = "order_id"
    retention: Seconds | None = None
    compacted: bool = False
    writers: tuple[str, ...] | Literal["everyone"] = Field(description="the contract: nobody else writes it")
    readers: tuple[Literal["oms-cli"], ...] = Field(default=(), description="who reads it besides our processes")
    max_message_bytes: int = Field(default=1_048_576, ge=1, description="as the broker counts: a batch, compressed")
    public: bool = Field(default=False, description="a contract with subscribers outside")
    coming: bool = Field(default=False, description="its writers or readers come with a later issue")

    @model_validator(mode="after")
    def _kept(self) -> Topic:
        if (self.retention is None) is not self.compacted:
            raise ValueError("a topic has either a retention or compacted: true")
        return self


class _Process(_Strict):
    """Anything that `oms run NAME` starts and that reads or writes topics."""

    name: str
    inputs: tuple[str, ...] = Field(min_length=1)
    outputs: tuple[str, ...] = ()
    needs: tuple[str, ...] = Field(default=(), description="services that it calls")
    instances: PerProfile

    @property
    def group(self) -> str:
        """The consumer group, named after the process (rule 3)."""
        return self.name

    @property
    def writes(self) -> tuple[str, ...]:
        """Every topic it writes, in its transaction or not."""
        return self.outputs


class Beside(_Strict):
    """A thread beside a processor, which writes outside of the processor's transactions."""

    run: Target
    outputs: tuple[str, ...]


class Processor(_Process):
    """A stream processor: one quixstreams application, one group, one process an instance."""

    handler: Target
    beside: Beside | None = None
    stateful: bool
    changelog: str | None = Field(default=None, description="the topic of its state, by quixstreams' naming")
    guarantee: Literal["exactly-once"]
    relaxed: bool = Field(
        default=False, description="nobody waits for it: it reads and commits seldom, which costs little"
    )
    history: History = Field(default="each", description="what it reads of orders that were imported")

    @property
    def writes(self) -> tuple[str, ...]:
        return self.outputs + (self.beside.outputs if self.beside else ())


class Worker(_Process):
    """Calls to the outside world."""

    run: Target
    tables: tuple[str, ...] = Field(default=(), description="compacted topics that it keeps whole in memory")
    guarantee: Literal["at-least-once"]


class Sink(_Process):
    """Topics into ClickHouse. `views` are the tables that it fills."""

    run: Target
    views: tuple[str, ...] = Field(min_length=1)
    guarantee: Literal["effectively-once"]
    instances: dict[Profile, Annotated[int, Field(ge=0)]] = Field(description="0: that profile does without it")


class Gateway(_Process):
    """HTTP in, commands out."""

    run: Target
    instances: dict[Profile, Annotated[int, Field(ge=0)]] = Field(description="0: that profile does without it")


class Service(_Strict):
    """What the embedded stack starts besides: `python -m RUN`."""

    name: str
    run: str = Field(pattern=r"^[A-Za-z_][\w.]*$", description="the module")
    embedded_only: bool = False


Process = Processor | Worker | Sink | Gateway
_SECTIONS = ("topics", "processors", "workers", "sinks", "gateways", "services")


class Topology(_Strict):
    """The whole file. `path` is where it came from."""

    path: Path
    partition_counts: PerProfile = Field(alias="partitions")
    topics: dict[str, Topic]
    processors: dict[str, Processor]
    workers: dict[str, Worker]
    sinks: dict[str, Sink]
    gateways: dict[str, Gateway]
    services: dict[str, Service]

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:
        """Each entry learns the key that it stands under."""
        if not isinstance(data, Mapping):
            return data
        out = dict(data)
        for section in _SECTIONS:
            if isinstance(entries := data.get(section), Mapping):
                out[section] = {
                    name: {**entry, "name": name} if isinstance(entry, Mapping) else entry
                    for name, entry in entries.items()
                }
        return out

    def processes(self) -> Iterator[Process]:
        """Processors, workers, sinks, gateways, in the file's order."""
        for section in (self.processors, self.workers, self.sinks, self.gateways):
            yield from section.values()

    def process(self, name: str) -> Process:
        """TopologyError when there is none of that name."""
        for process in self.processes():
            if process.name == name:
                return process
        known = ", ".join(process.name for process in self.processes())
        raise TopologyError(f"{self.path.name} has no process {name!r}; it has {known}.")

    def group(self, name: str) -> str:
        """The consumer group of a process."""
        return self.process(name).group

    def instances(self, name: str, profile: Profile) -> int:
        """How many of a process run."""
        return self.process(name).instances[profile]

    def services_for(self, profile: Profile) -> tuple[str, ...]:
        """Kafka, and the services that a process needs of which there are instances."""
        needed = {need for process in self.processes() if process.instances[profile] for need in process.needs}
        return tuple(name for name in self.services if name in needed | {"kafka"})

    def partitions(self, profile: Profile) -> int:
        """Of every topic and changelog: all have the same number, so all with the same key are co-partitioned."""
        return self.partition_counts[profile]

    def changelog(self, name: str) -> str:
        """The changelog topic of a stateful processor. TopologyError when it has none."""
        found = self.processors[name].changelog if name in self.processors else None
        if found is None:
            raise TopologyError(f"{self.path.name} gives {name} no changelog.")
        return found

    def changelog_topics(self) -> tuple[str, ...]:
        """The state of the stateful processors."""
        return tuple(p.changelog for p in self.processors.values() if p.changelog is not None)

    def longest_retention(self) -> int:
        """In seconds; of the topics that are not compacted."""
        return max((topic.retention for topic in self.topics.values() if topic.retention is not None), default=0)


def default_path() -> Path:
    """topology.yaml in a checkout's root, or beside this module when installed as a wheel."""
    checkout, installed = _HERE.parent / "topology.yaml", _HERE / "topology.yaml"
    return checkout if checkout.exists() else installed


def load(path: Path | None = None) -> Topology:
    """Read and type topology.yaml (`path`: another one). TopologyError: a sentence a fault, each with its line."""
    path = path or default_path()
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise TopologyError(f"{path} can't be read: {error.strerror}.") from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise TopologyError(f"{path.name}:{line}: {error.problem}.") from error
    if not isinstance(root, yaml.MappingNode):
        raise TopologyError(f"{path.name}:1: the file is not a mapping.")
    if repeated := list(_repeated(root)):
        raise TopologyError("\n".join(f"{path.name}:{line}: {key} stands here twice." for line, key in repeated))
    try:
        return Topology.model_validate({**data, "path": path})
    except ValidationError as error:
        faults = [_sentence(path, root, fault) for fault in error.errors(include_url=False)]
        raise TopologyError("\n".join(dict.fromkeys(faults))) from error


def _repeated(node: yaml.Node) -> Iterator[tuple[int, str]]:
    """Keys that PyYAML would let the later one win of."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                yield key.start_mark.line + 1, key.value
            seen.add(key.value)
            yield from _repeated(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated(item)


def _sentence(path: Path, root: yaml.MappingNode, fault: Any) -> str:
    # pydantic adds to the place which member of a union it tried; what is not in the file is no place in it.
    line, place = 1, []
    node: yaml.Node | None = root
    for part in fault["loc"]:
        found = _child(node, part)
        if found is None:
            if fault["type"] == "missing":
                place.append(str(part))
            break
        line, node = found
        place.append(str(part))
    # "… is missing", "… should be …", but "…: a topic has either …"
    message = {
        "extra_forbidden": " is not known here",
        "missing": " is missing",
        "value_error": ": " + fault["msg"].removeprefix("Value error, "),
    }.get(fault["type"], " " + fault["msg"].removeprefix("Input "))
    return f"{path.name}:{line}: {'.'.join(place) or 'the file'}{message}."


def _child(node: yaml.Node | None, part: Any) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        item = node.value[part]
        return item.start_mark.line + 1, item
    return None
