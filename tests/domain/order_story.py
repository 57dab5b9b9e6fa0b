"""given / when / then for the order rules: fold commands one after the other, look at what the last one led to."""

from __future__ import annotations

from typing import Any

from processors.order.decide import decide
from processors.order.evolve import evolve
from schemas.base import Event, Payload
from schemas.order import Order
from schemas.policy import Policy
from schemas.replies import Rejection
from tests.support.examples import ORDER, POLICY, T0, command


class Story:
    """One order's life in memory."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.policy = policy
        self.order: Order | None = None
        self.history: list[Event[Any]] = []
        self.happened: list[str] = []
        self.refusal: Rejection | None = None

    def given(self, *payloads: Payload, **envelope: Any) -> Story:
        for payload in payloads:
            self.when(payload, **envelope)
            assert self.refusal is None, self.refusal
        return self

    def when(self, payload: Payload, **envelope: Any) -> Story:
        decision = decide(self.order, command(payload, **envelope), self.policy)
        if isinstance(decision, Rejection):
            self.refusal, self.happened = decision, []
            return self
        self.refusal, self.happened = None, [type(p).__name__ for p in decision]
        for fact in decision:
            event = Event(
                id=f"e{len(self.history) + 1}",
                order_id=ORDER,
                version=len(self.history) + 1,
                occurred_at=envelope.get("at", T0),
                actor=envelope.get("actor", "customer:42"),
                correlation_id="c",
                causation_id="x",
                previous_hash="",
                data=fact,
            )
            self.order = evolve(self.order, event)
            self.history.append(event)
        return self

    def then(self, *events: str) -> Story:
        assert self.refusal is None, self.refusal
        assert self.happened == list(events)
        return self

    def refused(self, type: str, status: int = 409, field: str | None = None) -> Story:
        assert self.refusal is not None, f"not refused: {self.happened}"
        assert (self.refusal.type, self.refusal.status, self.refusal.field) == (type, status, field)
        return self

    @property
    def now(self) -> Order:
        assert self.order is not None
        return self.order

    @property
    def attempt(self) -> str:
        return self.now.payments[-1].attempt_id
