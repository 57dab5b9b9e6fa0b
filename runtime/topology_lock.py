"""topology.lock: the names that state and offsets are found by.

A consumer group, a changelog and a topic are looked up by name. Whoever renames one gets a new, empty one, and no
error: the old state just lies there. So the names are pinned beside topology.yaml, and a change of them is a change
of two files, the second with `oms topology lock --accept`.

A topic has a *generation*, which grows when its key or the number of partitions changes: both move keys away from
their state, so such a topic can't be adjusted where it lies.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from runtime.topology import Processor, Profile, Topology, TopologyError

_HEADER = """\
# The names that state and offsets are found by; `oms topology check` fails when topology.yaml has others.
# Written by `oms topology lock --accept`; read docs/decisions/0005-topology.md before accepting a change.
"""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Partitions(_Strict):
    """How many partitions every topic has. `generation` counts the changes of it."""

    generation: int
    counts: dict[Profile, int]


class LockedTopic(_Strict):
    """A topic by its name; `generation` counts the changes of its key or partitions."""

    generation: int
    key: str


class LockedState(_Strict):
    """A stateful processor's store: bound to the group and the inputs, kept in the changelog."""

    group: str
    inputs: tuple[str, ...]
    store: str
    changelog: str


class Lock(_Strict):
    """The whole file."""

    partitions: Partitions
    topics: dict[str, LockedTopic]
    groups: dict[str, str]
    state: dict[str, LockedState]


_ACCEPT = "`oms topology lock --accept`"

STORE = "default"
"""quixstreams' name for a dataframe's own state store."""


def changelog_name(processor: Processor) -> str:
    """The changelog that quixstreams reads and writes for a processor, by quixstreams' own functions."""
    # Late: only checks and locks need it, and it takes half a second to import. It also brings up a deprecation inside
    # of a library of its own, which is nobody's fault here.
    with warnings.catch_warnings(record=True):
        from quixstreams.models.topics.admin import TopicAdmin
        from quixstreams.models.topics.manager import TopicManager
        from quixstreams.utils.stream_id import stream_id_from_strings

    # It connects when it is first asked for a topic, which it is not here.
    manager = TopicManager(TopicAdmin("nowhere:0"), consumer_group=processor.group)
    name: str = manager._internal_name("changelog", stream_id_from_strings(*processor.inputs), STORE)
    return name


def path_of(topology: Topology) -> Path:
    """The lock beside a topology.yaml."""
    return topology.path.with_suffix(".lock")


def read(topology: Topology) -> Lock | None:
    """The lock, or None when there is none yet. TopologyError when it is no lock."""
    path = path_of(topology)
    try:
        return Lock.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (yaml.YAMLError, ValidationError) as error:
        raise TopologyError(
            f"{path.name} is not as `oms topology lock --accept` writes it: restore it from version control."
        ) from error


def lock_of(topology: Topology, before: Lock | None) -> Lock:
    """The lock that fits the topology; generations go on from those before."""
    counts = topology.partition_counts
    moved = before is not None and before.partitions.counts != counts
    generation = 1 if before is None else before.partitions.generation + moved
    topics = {}
    for topic in topology.topics.values():
        known = before.topics.get(topic.name) if before else None
        grown = known.generation + (moved or known.key != topic.key) if known else 1
        topics[topic.name] = LockedTopic(generation=grown, key=topic.key)
    return Lock(
        partitions=Partitions(generation=generation, counts=counts),
        topics=topics,
        groups={process.name: process.group for process in topology.processes()},
        state={
            processor.name: LockedState(
                group=processor.group,
                inputs=tuple(sorted(processor.inputs)),
                store=STORE,
                changelog=changelog_name(processor),
            )
            for processor in topology.processors.values()
            if processor.stateful
        },
    )


def differences(topology: Topology) -> list[str]:
    """What the lock has otherwise than topology.yaml, with what follows and how to proceed."""
    before = read(topology)
    path = path_of(topology)
    if before is None:
        return [f"there is no {path.name}: write it with `oms topology lock --accept` and commit it."]
    now = lock_of(topology, before)
    faults = []
    if now.partitions != before.partitions:
        faults.append(
            f"partitions were {_counts(before)} and are {_counts(now)}: a topic that exists can't follow, so go back, "
            f"or replay into a new cluster and accept it with {_ACCEPT}."
        )
    for name in before.topics.keys() - now.topics.keys():
        faults.append(
            f"topic {name} is gone or renamed, and what lies in it would not be read any more: keep the name, or "
            f"accept that with {_ACCEPT}."
        )
    for name in now.topics.keys() - before.topics.keys():
        faults.append(f"topic {name} is new: accept it with {_ACCEPT}.")
    for name in before.topics.keys() & now.topics.keys():
        was, key = before.topics[name].key, now.topics[name].key
        if was != key:
            faults.append(
                f"topic {name} was keyed by {was} and is by {key}, so that a key's messages would lie in two "
                f"partitions: give it a new name, or, while it is empty everywhere, accept it with {_ACCEPT}."
            )
    for name in before.groups.keys() - now.groups.keys():
        lost = "offsets and its state" if name in before.state else "offsets"
        faults.append(
            f"consumer group {before.groups[name]} is gone or renamed, and its {lost} would be lost: keep the name, "
            f"or accept that with {_ACCEPT}."
        )
    for name in now.groups.keys() - before.groups.keys():
        faults.append(f"consumer group {now.groups[name]} is new: accept it with {_ACCEPT}.")
    for name in before.groups.keys() & now.groups.keys():
        was_state, now_state = before.state.get(name), now.state.get(name)
        if was_state is None and now_state is not None:
            faults.append(
                f"processor {name} is stateful now and would know nothing of what it has read: replay into a group of "
                f"a new name, or accept that with {_ACCEPT}."
            )
        elif was_state is not None and now_state is None:
            faults.append(
                f"processor {name} is stateless now, and its state would be left behind: accept that with {_ACCEPT}."
            )
        elif was_state is not None and now_state is not None and was_state != now_state:
            faults.append(
                f"processor {name} would start with empty state, because its changelog was {was_state.changelog} and "
                f"is {now_state.changelog}: keep its inputs, or replay into a processor of a new name and accept it "
                f"with {_ACCEPT}."
            )
    return sorted(faults)


def accept(topology: Topology) -> Path:
    """Write the lock as topology.yaml has it now; returns where."""
    path = path_of(topology)
    lock = lock_of(topology, read(topology))
    path.write_text(_HEADER + "\n" + _text(lock), encoding="utf-8")
    return path


def _counts(lock: Lock) -> str:
    return ", ".join(f"{number} {profile}" for profile, number in lock.partitions.counts.items())


def _text(lock: Lock) -> str:
    """YAML, a line an entry, so that a change of one is a change of one line."""
    data: dict[str, Any] = lock.model_dump(mode="json")
    lines = [f"partitions: {_flow(data['partitions'])}"]
    for section in ("topics", "groups", "state"):
        lines += ["", f"{section}:"]
        lines += [f"  {name}: {_flow(entry)}" for name, entry in sorted(data[section].items())]
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000).strip()
    return text.removesuffix("\n...")
