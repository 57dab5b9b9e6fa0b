"""Does topology.yaml fit together, and does it fit the code? Without a broker."""

from __future__ import annotations

import importlib
import importlib.util
import re
import traceback
from collections import Counter
from collections.abc import Iterator

import schemas  # noqa: F401  (registers every family)
from runtime import topology_lock
from runtime.topology import EVERYONE, INGRESS, OPERATOR, Gateway, Processor, Topology
from schemas.base import FAMILIES

_LONGEST_NAME = 249  # Kafka's limit


def check(topology: Topology) -> list[str]:
    """Everything that is wrong, a sentence each; empty when nothing is."""
    faults = [
        *_names(topology),
        *_topics(topology),
        *_writers(topology),
        *_processes(topology),
        *_state(topology),
        *_implementations(topology),
    ]
    # What is wrong above would only be repeated by the lock in other words.
    return faults or topology_lock.differences(topology)


def _names(topology: Topology) -> Iterator[str]:
    processes = Counter([process.name for process in topology.processes()] + list(topology.services))
    for name, times in processes.items():
        if times > 1:
            yield f"{name} is the name of {times} parts: `oms run {name}` would not know which."
        if name in (OPERATOR, EVERYONE):
            yield f"{name} can't be the name of a part: it means somebody else in `writers`."
    for name in [*topology.topics, *topology.changelog_topics()]:
        if not re.fullmatch(r"[a-zA-Z0-9._-]+", name) or len(name) > _LONGEST_NAME:
            yield f"{name} is no name for a topic: letters, digits, . _ - and at most {_LONGEST_NAME} of them."


def _topics(topology: Topology) -> Iterator[str]:
    read = {topic for process in topology.processes() for topic in process.inputs}
    read |= {topic for worker in topology.workers.values() for topic in worker.tables}
    written = {topic for process in topology.processes() for topic in process.writes}
    for topic in topology.topics.values():
        if topic.speaks not in FAMILIES:
            yield f"topic {topic.name} speaks {topic.speaks}, which is no family in schemas (schemas.base.FAMILIES)."
        if topic.coming:
            continue
        if topic.name not in written and topic.writers != EVERYONE:
            yield f"nobody writes topic {topic.name}: add it to somebody's outputs, or mark it as coming: true."
        if topic.name not in read and not topic.public and not topic.readers:
            yield (
                f"nobody reads topic {topic.name}: add it to somebody's inputs, or mark it as public: true or "
                "coming: true."
            )


def _writers(topology: Topology) -> Iterator[str]:
    processes = {process.name: process for process in topology.processes()}
    for topic in topology.topics.values():
        if topic.writers == EVERYONE:
            continue
        for name in topic.writers:
            if name == OPERATOR:
                continue
            if name not in processes:
                yield f"topic {topic.name} has the writer {name}, which topology.yaml does not have."
            elif topic.name not in processes[name].writes:
                yield f"topic {topic.name} has the writer {name}, but {name} does not have it in its outputs."
        if topic.name == INGRESS:
            yield from _ingress(topology)
    for process in topology.processes():
        for name in process.writes:
            if name not in topology.topics:
                yield f"{process.name} writes topic {name}, which is not declared under topics."
                continue
            writers = topology.topics[name].writers
            if writers != EVERYONE and process.name not in writers:
                allowed = f"only {', '.join(writers)} may" if writers else "nobody may"
                yield f"{process.name} writes topic {name}, but {allowed}: see the topic's writers."


def _ingress(topology: Topology) -> Iterator[str]:
    for name in topology.topics[INGRESS].writers:
        if name not in topology.gateways:
            yield (
                f"{name} writes {INGRESS}, which only gateways may: users would wait behind its transactions "
                "(rule 1); write order.internal instead."
            )


def _processes(topology: Topology) -> Iterator[str]:
    for worker in topology.workers.values():
        for name in worker.tables:
            if name not in topology.topics or not topology.topics[name].compacted:
                yield f"{worker.name} has the table {name}, which is no compacted topic."
    for process in topology.processes():
        for name in process.inputs:
            if name not in topology.topics:
                yield f"{process.name} reads topic {name}, which is not declared under topics."
        for what, names in (("inputs", process.inputs), ("outputs", process.writes)):
            for name, times in Counter(names).items():
                if times > 1:
                    yield f"{process.name} has {name} {times} times in its {what}."
        for service in process.needs:
            if service not in topology.services:
                yield f"{process.name} needs {service}, which is not declared under services."
        for profile in ("embedded", "production"):
            if profile not in process.instances:
                yield f"{process.name} has no number of instances for {profile}."
            # A gateway instance reads its topics whole; everybody else shares the partitions out.
            elif not isinstance(process, Gateway) and process.instances[profile] > topology.partition_counts[profile]:
                yield (
                    f"{process.name} has {process.instances[profile]} instances in {profile} for "
                    f"{topology.partition_counts[profile]} partitions: the others would have nothing to do."
                )


def _state(topology: Topology) -> Iterator[str]:
    for processor in topology.processors.values():
        if not processor.stateful:
            if processor.changelog is not None:
                yield f"processor {processor.name} has a changelog but is not stateful."
            continue
        yield from _copartitioned(topology, processor)
        expected = topology_lock.changelog_name(processor)
        if processor.changelog is None:
            yield f"processor {processor.name} is stateful but has no changelog: add `changelog: {expected}`."
        elif processor.changelog != expected:
            yield (
                f"processor {processor.name} has the changelog {processor.changelog}, but for these inputs "
                f"quixstreams writes {expected}."
            )


def _copartitioned(topology: Topology, processor: Processor) -> Iterator[str]:
    """State is found by key and partition: inputs with different keys would each see another part of it."""
    keys = {name: topology.topics[name].key for name in processor.inputs if name in topology.topics}
    if len(set(keys.values())) > 1:
        listed = ", ".join(f"{name} by {key}" for name, key in keys.items())
        yield f"the inputs of stateful processor {processor.name} have different keys: {listed}."


def _implementations(topology: Topology) -> Iterator[str]:
    for process in topology.processes():
        if isinstance(process, Processor):
            yield from _importable(process.name, process.handler)
            if process.beside is not None:
                yield from _importable(process.name, process.beside.run)
        else:
            yield from _importable(process.name, process.run)
    for service in topology.services.values():
        try:
            found = importlib.util.find_spec(service.run)
        except ModuleNotFoundError:
            found = None
        if found is None:
            yield f"service {service.name} runs module {service.run}, which does not exist."


def _importable(name: str, target: str) -> Iterator[str]:
    module, _, attribute = target.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # noqa: BLE001  (a module may raise anything while it is imported)
        why = traceback.format_exception_only(error)[-1].strip()
        yield f"{name} runs {target}, which can't be imported: {why}."
        return
    if found is None:
        yield f"{name} runs {target}, but {module} has no {attribute}."
    elif not callable(found):
        yield f"{name} runs {target}, which can't be called."
