"""What the order's events mean for its placement."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from processors.placement.model import Attempt, Need, PendingEdit, Placement, Score, Timer, Transfer, Use
from schemas import events as e
from schemas.address import Address
from schemas.base import Event, Instant
from schemas.order import CancellationReason, Line, ShipmentLine
from schemas.policy import Policy


def told(placement: Placement | None, event: Event[Any], policy: Policy) -> Placement | None:
    data = event.data
    if isinstance(data, e.OrderCreated):
        return _begun(event, data)
    if placement is None:
        if not isinstance(data, e.OrderSubmitted):
            return None
        placement = Placement(order_id=event.order_id)  # a draft from before drafts were known here
    if placement.phase == "draft":
        return _draft_told(placement, event, policy)
    if placement.phase == "ended":
        changes = _told_of_money(placement, data)
    else:
        changes = _told_of_money(placement, data) or _told_of_the_order(placement, event, policy)
    return placement.but(**changes, version=event.version) if changes else placement


def _begun(event: Event[Any], created: e.OrderCreated) -> Placement:
    draft = Placement(
        order_id=event.order_id,
        customer_id=created.customer_id,
        currency=created.currency,
        version=event.version,
    )
    return draft if created.abandon_at is None else draft.but(timers=_abandoning(event, created.abandon_at))


def _draft_told(draft: Placement, event: Event[Any], policy: Policy) -> Placement:
    match event.data:
        case e.OrderSubmitted() as submitted:
            return _submitted(draft, submitted, event.version, policy)
        case e.OrderCancelled():
            return draft.but(phase="ended", timers=(), version=event.version)
        case _:  # somebody works at it: the time until it is abandoned begins anew
            due_at = event.occurred_at + policy.deadlines.draft_abandoned_after
            return draft.but(timers=draft.timers and _abandoning(event, due_at), version=event.version)


def _abandoning(event: Event[Any], due_at: Instant) -> tuple[Timer, ...]:
    return (Timer(kind="abandoned_draft", due_at=due_at, generation=str(event.version)),)


def _submitted(draft: Placement, submitted: e.OrderSubmitted, version: int, policy: Policy) -> Placement:
    """Stock, promotions and scoring are asked at once, side by side."""
    return draft.but(
        phase="placing",
        customer_id=submitted.customer_id or draft.customer_id,
        needs=tuple(new_need(line, line.quantity, version) for line in submitted.lines),
        uses=tuple(Use(code=applied.terms.code, version=version) for applied in submitted.promotions),
        scores=asked_scores(submitted.customer_id, submitted.shipping_address, version, policy),
        timers=(),
        version=version,
    )


def asked_scores(customer_id: str | None, address: Address | None, version: int, policy: Policy) -> tuple[Score, ...]:
    if not policy.fraud.enabled:
        return ()
    asked = {"customer": customer_id, "address": address.fingerprint if address else None}
    return tuple(Score(aspect=aspect, version=version) for aspect, subject in asked.items() if subject)


def _told_of_money(placement: Placement, data: Any) -> dict[str, Any]:
    """Money goes back after an order's end, too."""
    match data:
        case e.OrderRefundInitiated(refund_id=transfer_id, amount=amount):
            return _transfer_asked(placement, transfer_id, amount)
        case e.OrderPaymentCaptureRequested(capture_id=transfer_id, amount=amount):
            return _transfer_asked(placement, transfer_id, amount)
        case e.OrderPaymentVoidRequested(attempt_id=attempt_id):
            timers = placement.without_timer(f"authorization_renewal:{attempt_id}")
            return {"timers": timers, **_transfer_asked(placement, attempt_id, 0)}
        case _:
            return {}


def _transfer_asked(placement: Placement, transfer_id: str, amount: int) -> dict[str, Any]:
    if placement.transfer(transfer_id) is not None:
        return {}
    return {"transfers": (*placement.transfers, Transfer(transfer_id=transfer_id, amount=amount))}


def _told_of_the_order(placement: Placement, event: Event[Any], policy: Policy) -> dict[str, Any]:
    version = event.version
    match event.data:
        case e.OrderPaymentRequested() as requested:
            return _payment_requested(placement, requested)
        case e.OrderPaymentConfirmed() as confirmed:
            return _payment_confirmed(placement, confirmed, event.occurred_at, policy)
        case e.OrderHeld(due_at=due_at):
            timers = placement.without_timer("payment_timeout")
            review = () if due_at is None else (Timer(kind="review_deadline", due_at=due_at, generation=str(version)),)
            return {"held": True, "timers": (*timers, *review)}
        case e.OrderReleased(kind=kind):
            return {
                "held": False,
                "review": 0,
                "cleared": placement.cleared or kind == "fraud",
                "timers": placement.without_timer("review_deadline"),
                "attempts": placement.without_uncharged("order"),  # [order] asks afresh
            }
        case (
            e.OrderLineItemAdded(lines=lines)
            | e.OrderLineItemRemoved(lines=lines)
            | e.OrderLineItemQuantityChanged(lines=lines)
        ):
            return {"needs": _needs_of(placement, lines, version)}
        case e.OrderItemsCancelled(lines=cancelled) as off if not _had_left(off):
            return {"needs": _given_back(placement, _units(cancelled, -1), version)}
        case e.OrderShipmentLost(lines=lost, reship=True):
            return {"needs": _asked_by_fulfilment(placement, _units(lost))}
        case e.OrderPromotionRemoved(promotions=left):
            codes = {applied.terms.code for applied in left} | set(placement.edit.codes if placement.edit else ())
            return {"uses": tuple(use for use in placement.uses if use.code in codes)}
        case e.OrderEditRequested() as requested:
            return _edit_requested(placement, requested, version, policy)
        case e.OrderEditCompleted(edit_id=edit_id) as done if placement.edit and placement.edit.edit_id == edit_id:
            over = _edit_over(placement, version)
            renewal = _renewal(done.attempt_id or "", done.expires_at, event.occurred_at, policy)
            return {**over, "timers": (*over["timers"], *renewal)}
        case e.OrderEditFailed(edit_id=edit_id) if placement.edit and placement.edit.edit_id == edit_id:
            kept = tuple(use for use in placement.uses if use.code not in placement.edit.codes)
            return {**_edit_over(placement, version), "uses": kept}
        case e.OrderCancelled():
            return _ended(placement)
        case _:
            return {}


def _payment_requested(placement: Placement, requested: e.OrderPaymentRequested) -> dict[str, Any]:
    if placement.attempt(requested.attempt_id) is not None:
        return {}
    attempt = Attempt(
        attempt_id=requested.attempt_id,
        amount=requested.amount,
        currency=requested.currency,
        token=requested.payment_token,
        valid_until=requested.valid_until,
        purpose=requested.purpose,
        authorize=requested.authorize,
    )
    changes: dict[str, Any] = {"attempts": (*placement.without_uncharged(requested.purpose), attempt)}
    if requested.purpose == "order":  # the order lives on without a renewal
        timeout = Timer(kind="payment_timeout", due_at=requested.due_at, generation=requested.attempt_id)
        changes["timers"] = (*placement.without_timer("payment_timeout"), timeout)
    return changes


def _payment_confirmed(
    placement: Placement, confirmed: e.OrderPaymentConfirmed, at: Instant, policy: Policy
) -> dict[str, Any]:
    fate = "authorized" if confirmed.authorized else "captured"
    attempt = placement.attempt(confirmed.attempt_id)
    timers = placement.timers if confirmed.purpose == "renewal" else placement.without_timer("payment_timeout")
    imported = attempt is not None and not attempt.settled  # nobody asked a provider
    if imported:
        words = {"fate": fate, "taken": confirmed.amount, "provider_ref": confirmed.provider_ref}
        placement = placement.settled(confirmed.attempt_id, **words)
    renewal = _renewal(confirmed.attempt_id, confirmed.expires_at, at, policy)
    return {"phase": "paid", "scores": (), "timers": (*timers, *renewal), "attempts": placement.attempts}


def _renewal(attempt_id: str, expires_at: Instant | None, at: Instant, policy: Policy) -> tuple[Timer, ...]:
    """Reserved money is reserved anew before that expires; not before half of its time is over, or the renewals of a
    short one would never stop."""
    if expires_at is None:
        return ()
    left = max(expires_at - at, timedelta(0))
    due_at = max(at + left / 2, expires_at - policy.payment.renew_before)
    return (Timer(kind="authorization_renewal", due_at=due_at, generation=attempt_id),)


def _edit_requested(
    placement: Placement, requested: e.OrderEditRequested, version: int, policy: Policy
) -> dict[str, Any]:
    """An edit that costs more is scored, but for one of staff, who have seen whom they do it for."""
    edit = requested.edit
    scored = requested.amount > 0 and not edit.actor.startswith("staff:")
    to = requested.shipping_address
    held = {need.line_id: need.wanted for need in placement.needs}
    used = {use.code for use in placement.uses}
    rises = tuple(
        new_need(line, units, version)
        for line in edit.lines
        if (units := line.quantity - line.cancelled) > held.get(line.line_id, 0)
    )
    pending = PendingEdit(
        edit_id=edit.edit_id,
        version=version,
        rises=rises,
        codes=tuple(x.terms.code for x in edit.promotions if x.amount > 0 and x.terms.code not in used),
        attempt_id=edit.attempt_id if requested.amount else None,
        scores=asked_scores(placement.customer_id, to, version, policy) if scored else (),
    )
    timeout = Timer(kind="edit_timeout", due_at=requested.due_at, generation=edit.edit_id)
    changes: dict[str, Any] = {"edit": pending, "timers": (*placement.without_timer("edit_timeout"), timeout)}
    if pending.attempt_id is not None:
        attempt = Attempt(
            attempt_id=pending.attempt_id,
            amount=requested.amount,
            currency=requested.currency,
            token=requested.payment_token or "",
            valid_until=requested.valid_until,
            purpose="edit",
            authorize=requested.authorize,
        )
        changes["attempts"] = (*placement.without_uncharged("edit"), attempt)
    return changes


def _edit_over(placement: Placement, version: int) -> dict[str, Any]:
    """What the edit asked of the stock and did not come to be wanted is given back."""
    return {
        "edit": None,
        "needs": _given_back(placement.but(edit=None), {}, version),
        "timers": placement.without_timer("edit_timeout"),
        "attempts": placement.without_uncharged("edit"),
    }


def _ended(placement: Placement) -> dict[str, Any]:
    """Everything goes back; a tombstone of the payment attempts stays, because the provider may still have to say
    something. Attempts without an answer are a person's concern now."""
    attempts = [a for a in placement.attempts if a.fate != "requested"]
    return {
        "phase": "ended",
        "needs": (),
        "uses": (),
        "scores": (),
        "review": 0,
        "held": False,
        "edit": None,
        "timers": (),
        "attempts": tuple(a.model_copy(update={"raised": True}) if a.fate == "unknown" else a for a in attempts),
    }


# Needs


def new_need(line: Line, units: int, version: int) -> Need:
    return Need(
        line_id=line.line_id, sku=line.sku, backorder=line.backorder, wanted=units, asked=units, version=version
    )


def _needs_of(placement: Placement, lines: tuple[Line, ...], version: int) -> tuple[Need, ...]:
    """The needs when the order has these lines: what is wanted less is given back, what is wanted more asked for."""
    wanted = {line.line_id: line.quantity - line.cancelled for line in lines}
    known = {need.line_id for need in placement.needs}
    changes = {need.line_id: wanted.get(need.line_id, 0) - need.wanted for need in placement.needs}
    new = [new_need(line, wanted[line.line_id], version) for line in lines if line.line_id not in known]
    return (*_given_back(placement, changes, version), *(need for need in new if need.wanted > 0))


def _given_back(placement: Placement, changes: dict[str, int], version: int) -> tuple[Need, ...]:
    """The needs when so many more (less) units are wanted of lines. What a pending edit asks for stays asked for; a
    line of which nothing is wanted any more is gone."""
    rising = placement.edit.version if placement.edit else None
    needs = []
    for need in placement.needs:
        wanted = max(0, need.wanted + changes.get(need.line_id, 0))
        stays = need.version == rising and need.asked >= wanted
        if stays or wanted == need.asked:
            needs.append(need.model_copy(update={"wanted": wanted}))
        elif wanted > 0:
            update = {"wanted": wanted, "asked": wanted, "version": version, "fate": "asked"}
            needs.append(need.model_copy(update=update))
    return tuple(needs)


def _had_left(cancelled: e.OrderItemsCancelled) -> bool:
    """Units of a parcel that was lost or came back; what was shipped stays counted."""
    return cancelled.shipment_id is not None and cancelled.reason != CancellationReason.OUT_OF_STOCK


def _asked_by_fulfilment(placement: Placement, more: dict[str, int]) -> tuple[Need, ...]:
    """What is sent again has to be reserved again, on top of what was shipped; the fulfilment saga asks for it."""
    return tuple(
        need.model_copy(update={"wanted": need.wanted + units, "asked": need.asked + units})
        if (units := more.get(need.line_id, 0))
        else need
        for need in placement.needs
    )


def _units(lines: Iterable[ShipmentLine], sign: int = 1) -> dict[str, int]:
    units: dict[str, int] = {}
    for line in lines:
        units[line.line_id] = units.get(line.line_id, 0) + sign * line.quantity
    return units
