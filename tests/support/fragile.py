"""A processor that fails for as long as the file `broken` is in its data folder. For tests of dead letters."""

from __future__ import annotations

from collections.abc import Iterator

from processors.kit import Handler, Incoming, Outgoing, State
from runtime.settings import settings
from schemas.base import Message
from schemas.payment import PaymentNotMade
from schemas.policy import Policy

TOPOLOGY = """\
partitions: {embedded: 2, production: 2}
topics:
  fragile.first:   {speaks: payment.commands, retention: 1d, writers: everyone}
  fragile.second:  {speaks: payment.commands, retention: 1d, writers: everyone}
  fragile.out:     {speaks: payment.results, retention: 1d, writers: [fragile]}
  bystander.out:   {speaks: payment.results, retention: 1d, writers: [bystander]}
processors:
  fragile:
    handler: tests.support.fragile:handler
    inputs: [fragile.first, fragile.second]
    outputs: [fragile.out]
    stateful: true
    changelog: changelog__fragile--fragile.first--fragile.second--default
    guarantee: exactly-once
    instances: {embedded: 1, production: 1}
  bystander:
    handler: tests.support.fragile:sturdy
    inputs: [fragile.first, fragile.second]
    outputs: [bystander.out]
    stateful: true
    changelog: changelog__bystander--fragile.first--fragile.second--default
    guarantee: exactly-once
    instances: {embedded: 1, production: 1}
workers: {}
sinks: {}
gateways: {}
services: {}
"""


def handler(_: Policy) -> Handler:
    return _fragile


def sturdy(_: Policy) -> Handler:
    return lambda state, incoming: _answer(state, incoming, "bystander.out")


def _fragile(state: State, incoming: Incoming) -> Iterator[Outgoing]:
    yield from _answer(state, incoming, "fragile.out")
    # After an output and a write to the state: neither may survive.
    if incoming.message.data.attempt_id.startswith("bad") and (settings().data_dir / "broken").exists():
        raise RuntimeError("broken, as the test wants it")


def _answer(state: State, incoming: Incoming, topic: str) -> Iterator[Outgoing]:
    """Which message of its key this is, and its attempt."""
    seen = state.get("seen", 0) + 1
    state.set("seen", seen)
    message: Message[PaymentNotMade] = Message(
        id=incoming.message.id,
        at=incoming.appended_at,
        actor="system:fragile",
        correlation_id=incoming.message.correlation_id,
        order_id=incoming.key,
        data=PaymentNotMade(attempt_id=f"{seen} {incoming.message.data.attempt_id}"),
    )
    yield Outgoing(topic, incoming.key, message)
