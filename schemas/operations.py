"""What operators see: exceptions (a person must look) and dead letters (a message could not be processed)."""

from __future__ import annotations

from pydantic import Field

from schemas.base import Family, Instant, Message, Model, Payload

Family("exceptions", Message)
Family("dead.letters", Message)


class ExceptionOpened(Payload, family="exceptions"):
    """Something that no rule can settle. `exception_id` is derived from its cause: opened twice, it is still one."""

    exception_id: str
    kind: str
    owner: str
    detail: str
    facts: dict[str, str] = {}
    retry_topic: str | None = Field(default=None, description="where `retry` goes when somebody says: try again")
    retry_key: str | None = None
    retry: bytes | None = Field(default=None, description="the encoded message that is sent again, as it is")


class ExceptionRetried(Payload, family="exceptions"):
    """Somebody sent the message again; the exception stays open until something resolves it."""

    exception_id: str


class ExceptionResolved(Payload, family="exceptions"):
    exception_id: str
    resolution: str


class RawHeader(Model):
    name: str
    value: bytes


class DeadLettered(Payload, family="dead.letters"):
    """A message, whole, that `processor` could not process. reason: undecodable | failed | too_large | parked (an
    earlier message of the same key was dead-lettered, so this one waits behind it)."""

    letter_id: str
    processor: str
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[RawHeader, ...]
    appended_at: Instant
    reason: str
    error: str


class DeadLetterRetried(Payload, family="dead.letters"):
    letter_id: str
    batch: str


class DeadLetterDiscarded(Payload, family="dead.letters"):
    letter_id: str
    comment: str
