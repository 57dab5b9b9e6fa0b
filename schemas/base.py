"""What every message is made of: a payload (what it says) in an envelope (who said it, when, because of what).

A payload class is a frozen pydantic model registered under one *family*; a family is the language of one topic
(or of several that speak the same one). The Avro schema of a message is generated from envelope and payload
(`schemas.avro`), so adding a message means adding its class and running `make schemas`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a time needs its time zone")
    return value.astimezone(UTC)


Instant = Annotated[datetime, AfterValidator(_utc)]
"""A point in time, UTC, microseconds."""

Minor = Annotated[int, Field(description="amount in minor units of the currency named beside it")]


class Model(BaseModel):
    """A frozen value. Unknown fields are ignored, because a newer writer may know more than we do."""

    model_config = ConfigDict(frozen=True, extra="ignore")


FAMILIES: dict[str, Family] = {}


class Payload(Model):
    """What a message says. `family` puts the class into the registry: class CreateOrder(Payload, family="…")."""

    family: ClassVar[str] = ""

    def __init_subclass__(cls, family: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if family is not None:
            cls.family = family
            FAMILIES[family].add(cls)


P = TypeVar("P", bound=Payload)


class Message(Model, Generic[P]):
    """The envelope of everything that is neither a command to an order nor an event of one."""

    id: str = Field(description="unique; derived from its cause where it has one, so that a repeat is the same")
    at: Instant
    actor: str = Field(description="customer:ID, staff:ID or system:PROCESS")
    correlation_id: str = Field(description="the same in everything that one request set off")
    causation_id: str | None = Field(default=None, description="the id of the message that this one answers")
    order_id: str | None = None
    reply_to: str | None = Field(default=None, description="the gateway instance that waits; the key of the reply")
    data: P


class Command(Model, Generic[P]):
    """A command to one order."""

    id: str = Field(description="the command id: uuid5(caller, method, path, idempotency key)")
    order_id: str
    at: Instant
    actor: str
    correlation_id: str
    causation_id: str | None = None
    expected_version: int | None = Field(default=None, description="refused when the order is at another version")
    reply_to: str | None = Field(default=None, description="the gateway instance that waits; the key of the reply")
    body_hash: str | None = Field(default=None, description="SHA-256 of the raw request body")
    dry_run: bool = False
    data: P


class Event(Model, Generic[P]):
    """A fact about one order. `version` counts 1…n without a gap within the order."""

    id: str
    order_id: str
    version: int
    occurred_at: Instant
    actor: str
    correlation_id: str
    causation_id: str
    previous_hash: str = Field(
        description="SHA-256 (hex) of the order's event before this one as it lies on the topic; empty for the first"
    )
    data: P
    imported: bool = Field(default=False, description="history from another system: nobody acts on it")


Envelope = Message[Any] | Command[Any] | Event[Any]


class Family:
    """The payload classes of one topic's language, and the envelope they travel in."""

    def __init__(self, name: str, envelope: type[Message[Any]] | type[Command[Any]] | type[Event[Any]]) -> None:
        self.name = name
        self.envelope = envelope
        self.payloads: dict[str, type[Payload]] = {}
        FAMILIES[name] = self

    def add(self, payload: type[Payload]) -> None:
        if payload.__name__ in self.payloads:
            raise TypeError(f"{self.name} has a {payload.__name__} already")
        self.payloads[payload.__name__] = payload
