"""Where and how a customer wants to be told about orders."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo, field_validator
from starlette.responses import Response

from gateway.call import AnyCall, Call, reply
from gateway.models import Body, CustomerId, text
from gateway.preferences import CHANGES, TOPIC
from gateway.problems import Problem, not_found, unavailable
from gateway.reference import replace
from processors.notification.notices import OPTIONAL, TRANSACTIONAL
from processors.notification.webhooks import named
from schemas.notification import Preferences, PreferencesChanged, Wishes

router = APIRouter(prefix="/v1/customers", tags=["customers"])

CONTACTS = {"email": "email", "sms": "phone", "webhook": "webhook_url", "push": "push_token"}
_EMAIL = re.compile(r"[^@\s,;<>\"]{1,64}@[^@\s,;<>\"]{1,190}\.[^@\s,;<>\".]{2,63}")


def _email(address: str) -> str:
    if _EMAIL.fullmatch(address) is None:
        raise ValueError("must be an e-mail address")
    return address


def _optional(kind: str) -> str:
    if kind in TRANSACTIONAL:
        raise ValueError(
            f"{kind} belongs to the contract and is always sent; optional are {', '.join(sorted(OPTIONAL))}"
        )
    if kind not in OPTIONAL:
        raise ValueError(f"there is no message of kind {kind}; optional are {', '.join(sorted(OPTIONAL))}")
    return kind


class PreferencesBody(Body):
    model_config = ConfigDict(validate_default=True)  # a contact that is missing is looked at too

    channel: Literal["email", "sms", "webhook", "push"] = "email"  # first: the contacts look at it
    email: Annotated[str, text(254), AfterValidator(_email)] | None = None
    phone: Annotated[str, text(20, r"^\+[1-9]\d{6,14}$"), Field(description="E.164")] | None = None
    webhook_url: (
        Annotated[str, text(500, r"^https?://\S+$"), Field(description="https, with the name of a host")] | None
    ) = None
    push_token: Annotated[str, text(500, r"^\S+$")] | None = None
    language: Annotated[str, Field(pattern=r"^[a-z]{2}$", description="ISO 639-1; without words in it: English")] = "en"
    opt_outs: Annotated[
        list[Annotated[str, AfterValidator(_optional)]], Field(max_length=50, description="kinds of messages")
    ] = []

    @field_validator(*CONTACTS.values())
    @classmethod
    def _reachable(cls, contact: str | None, info: ValidationInfo) -> str | None:
        channel = info.data.get("channel")  # none: it is at fault itself
        if contact is None and channel is not None and CONTACTS[channel] == info.field_name:
            raise ValueError(f"channel {channel} needs it")
        return contact


@router.put("/{customer_id}/preferences")
async def put_preferences(call: AnyCall, customer_id: Annotated[CustomerId, Path()], body: PreferencesBody) -> Response:
    """Replace them. What names or reaches a person is sealed before it is stored."""
    _own(call, customer_id)
    if body.webhook_url is not None and not call.parts.settings.webhooks_to_private and not named(body.webhook_url):
        wrong = "must be an https URL with the name of a host"
        raise Problem("invalid-request", HTTPStatus.UNPROCESSABLE_ENTITY, wrong, field="webhook_url")
    contact = body.model_dump(include=set(CONTACTS.values()))
    wishes = Preferences(
        customer_id=customer_id,
        contact=await call.parts.addresses.seal_data(customer_id, contact),
        channel=body.channel,
        language=body.language,
        opt_outs=tuple(sorted(set(body.opt_outs))),
    )
    await replace(
        call,
        call.parts.preferences,
        customer_id,
        now=(TOPIC, wishes),
        changed=(CHANGES, await _change(call, wishes, contact)),
        sorry="This can't be stored at the moment.",
    )
    return reply(_shown(wishes, contact))


@router.get("/{customer_id}/preferences")
async def get_preferences(call: AnyCall, customer_id: Annotated[CustomerId, Path()]) -> Response:
    _own(call, customer_id)
    if not call.parts.preferences.loaded:
        raise unavailable("preferences-loading", "The preferences are still being loaded.")
    wishes = call.parts.preferences.of(customer_id)
    if wishes is None:
        raise not_found("There are no preferences of this customer yet.")
    contact = await call.parts.addresses.open_data(wishes.contact)
    return reply(_shown(wishes, contact or {}), HTTPStatus.OK)


async def _change(call: Call, wishes: Preferences, contact: dict[str, Any]) -> PreferencesChanged:
    """What the audit log is to know of it."""
    known = call.parts.preferences.of(wishes.customer_id)
    earlier = (await call.parts.addresses.open_data(known.contact) if known else None) or {}
    return PreferencesChanged(
        customer_id=wishes.customer_id,
        before=_wishes(known, earlier) if known else None,
        after=_wishes(wishes, contact),
        new_contacts=tuple(name for name in contact if contact[name] and contact[name] != earlier.get(name)),
    )


def _wishes(of: Preferences, contact: dict[str, Any]) -> Wishes:
    known = tuple(name for name in CONTACTS.values() if contact.get(name))
    return Wishes(channel=of.channel, language=of.language, opt_outs=of.opt_outs, contacts=known)


def _own(call: Call, customer_id: str) -> None:
    if not call.caller.staff and call.caller.id != customer_id:
        raise not_found("There is no such customer.")


def _shown(wishes: Preferences, contact: dict[str, Any]) -> dict[str, Any]:
    return {
        "customer_id": wishes.customer_id,
        **{name: contact.get(name) for name in CONTACTS.values()},
        "channel": wishes.channel,
        "language": wishes.language,
        "opt_outs": wishes.opt_outs,
    }
