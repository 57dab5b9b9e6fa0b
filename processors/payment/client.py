"""The port to a payment provider over HTTP, as the sandbox provider speaks it (decision 0004)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar
from urllib.parse import quote

from pydantic import AwareDatetime, BaseModel, ValidationError

from processors.outside import Client, NoAnswer, Unavailable
from processors.payment.provider import (
    AuthorizationOutcome,
    Authorized,
    Captured,
    CaptureMade,
    CaptureOutcome,
    CaptureRefused,
    ChargeOutcome,
    Declined,
    NotFound,
    ProviderUnavailable,
    Refunded,
    RefundOutcome,
    RefundRefused,
    Unknown,
    Voided,
    VoidOutcome,
    VoidRefused,
)

T = TypeVar("T")
R = TypeVar("R")
M = TypeVar("M", bound=BaseModel)


class HttpPaymentProvider(Client):
    """The port, over a client that repeats what was not processed. Open it with `async with`.

    Args:
        base_url: where `/v1/charges` is.
        timeout: seconds for one request, its answer included.
        options: of `processors.outside.Client`.
    """

    def __init__(self, base_url: str, timeout: float = 5.0, **options: Any) -> None:
        super().__init__("payment-provider", base_url, timeout, **options)

    async def charge(self, attempt_id: str, order_id: str, amount: int, currency: str, token: str) -> ChargeOutcome:
        body = {
            "amount": amount,
            "currency": currency,
            "payment_token": token,
            "reference": order_id,
            "capture": True,
        }
        try:
            return charge_outcome(*await self._send("POST", "/v1/charges", attempt_id, body))
        except NoAnswer as silence:
            return await _ask_after(silence, self.find_charge(attempt_id))

    async def find_charge(self, attempt_id: str) -> ChargeOutcome:
        try:
            return found_charge(*await self._send("GET", f"/v1/charges/{quote(attempt_id, safe='')}"))
        except NoAnswer as silence:
            return Unknown(silence.reason)

    async def authorize(
        self, attempt_id: str, order_id: str, amount: int, currency: str, token: str
    ) -> AuthorizationOutcome:
        body = {"amount": amount, "currency": currency, "payment_token": token, "reference": order_id}
        try:
            return authorization_outcome(*await self._send("POST", "/v1/authorizations", attempt_id, body))
        except NoAnswer as silence:
            return await _ask_after(silence, self.find_authorization(attempt_id))

    async def find_authorization(self, attempt_id: str) -> AuthorizationOutcome:
        try:
            return found_authorization(*await self._send("GET", f"/v1/authorizations/{quote(attempt_id, safe='')}"))
        except NoAnswer as silence:
            return Unknown(silence.reason)

    async def capture(self, capture_id: str, attempt_id: str, amount: int, currency: str) -> CaptureOutcome:
        body = {"attempt_id": attempt_id, "amount": amount, "currency": currency}
        try:
            return capture_outcome(*await self._send("POST", "/v1/captures", capture_id, body))
        except NoAnswer as silence:
            return await _ask_after(silence, self.find_capture(capture_id))

    async def find_capture(self, capture_id: str) -> CaptureOutcome | NotFound:
        try:
            return found_capture(*await self._send("GET", f"/v1/captures/{quote(capture_id, safe='')}"))
        except NoAnswer as silence:
            return Unknown(silence.reason)

    async def void(self, attempt_id: str) -> VoidOutcome:
        try:
            return void_outcome(*await self._send("POST", "/v1/voids", attempt_id, {"attempt_id": attempt_id}))
        except NoAnswer as silence:
            return await _ask_after(silence, self.find_void(attempt_id))

    async def find_void(self, attempt_id: str) -> VoidOutcome | NotFound:
        try:
            return found_void(*await self._send("GET", f"/v1/voids/{quote(attempt_id, safe='')}"))
        except NoAnswer as silence:
            return Unknown(silence.reason)

    async def refund(self, refund_id: str, attempt_id: str, amount: int, currency: str) -> RefundOutcome:
        body = {"attempt_id": attempt_id, "amount": amount, "currency": currency}
        try:
            return refund_outcome(*await self._send("POST", "/v1/refunds", refund_id, body))
        except NoAnswer as silence:
            return await _ask_after(silence, self.find_refund(refund_id))

    async def find_refund(self, refund_id: str) -> RefundOutcome | NotFound:
        try:
            return found_refund(*await self._send("GET", f"/v1/refunds/{quote(refund_id, safe='')}"))
        except NoAnswer as silence:
            return Unknown(silence.reason)

    async def _send(
        self, method: str, path: str, key: str | None = None, body: dict[str, object] | None = None
    ) -> tuple[int, bytes]:
        """Status and content of the answer. Raises NoAnswer or ProviderUnavailable."""
        try:
            return await self.send(method, path, key, body)
        except Unavailable as error:
            raise ProviderUnavailable(str(error)) from error


async def _ask_after(silence: NoAnswer, question: Awaitable[T | NotFound]) -> T | Unknown:
    """What the provider knows of a submission that it did not answer."""
    try:
        found = await question
    except ProviderUnavailable:
        return Unknown(silence.reason)
    # Not seen is not "will not be seen": the submission may still be on its way.
    return Unknown(f"{silence.reason}, not seen yet") if isinstance(found, NotFound) else found


class _Charge(BaseModel):
    id: str
    status: Literal["captured", "declined", "processing"]
    amount: int
    decline_code: str | None = None


class _Authorization(BaseModel):
    id: str
    status: Literal["authorized", "declined", "processing", "voided", "expired"]
    amount: int
    expires_at: AwareDatetime | None = None
    decline_code: str | None = None


class _Capture(BaseModel):
    id: str
    status: Literal["captured"]
    amount: int


class _Void(BaseModel):
    id: str
    status: Literal["voided"]


class _Refund(BaseModel):
    id: str
    status: Literal["refunded"]


class _Error(BaseModel):
    code: str


class _ErrorAnswer(BaseModel):
    error: _Error


# The provider's answers as outcomes, pure. They raise NoAnswer for an unreadable 200, and ProviderUnavailable for
# what the provider does not say: a proxy's 404, refused credentials. A decline needs the provider's own code.


def charge_outcome(status: int, content: bytes) -> ChargeOutcome:
    """The answer to `POST /v1/charges`."""
    return _attempted(status, content, _charge)


def found_charge(status: int, content: bytes) -> ChargeOutcome:
    """The answer to `GET /v1/charges/{attempt_id}`."""
    return _found(status, content, _charge, "charge_not_found")


def authorization_outcome(status: int, content: bytes) -> AuthorizationOutcome:
    """The answer to `POST /v1/authorizations`."""
    return _attempted(status, content, _authorization)


def found_authorization(status: int, content: bytes) -> AuthorizationOutcome:
    """The answer to `GET /v1/authorizations/{attempt_id}`."""
    return _found(status, content, _authorization, "authorization_not_found")


def capture_outcome(status: int, content: bytes) -> CaptureOutcome:
    """The answer to `POST /v1/captures`."""
    return _done(status, content, _capture, CaptureRefused, "authorization_not_found")


def found_capture(status: int, content: bytes) -> CaptureOutcome | NotFound:
    """The answer to `GET /v1/captures/{capture_id}`."""
    return _found(status, content, _capture, "capture_not_found")


def void_outcome(status: int, content: bytes) -> VoidOutcome:
    """The answer to `POST /v1/voids`."""
    return _done(status, content, _void, VoidRefused, "authorization_not_found")


def found_void(status: int, content: bytes) -> VoidOutcome | NotFound:
    """The answer to `GET /v1/voids/{attempt_id}`."""
    return _found(status, content, _void, "void_not_found")


def refund_outcome(status: int, content: bytes) -> RefundOutcome:
    """The answer to `POST /v1/refunds`."""
    return _done(status, content, _refund, RefundRefused, "charge_not_found")


def found_refund(status: int, content: bytes) -> RefundOutcome | NotFound:
    """The answer to `GET /v1/refunds/{refund_id}`."""
    return _found(status, content, _refund, "refund_not_found")


def _attempted(status: int, content: bytes, read: Callable[[bytes], T]) -> T | Declined | Unknown:
    """The answer to an attempt to be paid."""
    if status == 200:
        return read(content)
    code = _code(content)
    if status == 409:  # the id was used for another attempt, and what became of that one is not this one's outcome
        return Unknown(code or "http_409")
    if status in (400, 402, 422) and code is not None:
        return Declined(code)
    raise ProviderUnavailable(f"HTTP {status}")


def _done(
    status: int, content: bytes, read: Callable[[bytes], T], refused: Callable[[str], R], missing: str
) -> T | R | Unknown:
    """The answer to something done to an attempt; `missing` is the code when the provider does not know that."""
    if status == 200:
        return read(content)
    code = _code(content)
    if status == 409 and code in (None, "idempotency_key_reuse"):
        return Unknown(code or "http_409")
    if code is not None and (status in (400, 402, 409, 422) or code == missing):
        return refused(code)
    raise ProviderUnavailable(f"HTTP {status}")


def _found(status: int, content: bytes, read: Callable[[bytes], T], missing: str) -> T | NotFound:
    """The answer to a question."""
    if status == 200:
        return read(content)
    if status == 404 and _code(content) == missing:
        return NotFound()
    raise ProviderUnavailable(f"HTTP {status}")


def _charge(content: bytes) -> Captured | Declined | Unknown:
    charge = _parse(_Charge, content)
    if charge.status == "captured":
        return Captured(charge.id, charge.amount)
    if charge.status == "declined":
        return Declined(charge.decline_code or "declined")
    return Unknown("processing")


def _authorization(content: bytes) -> Authorized | Declined | Unknown:
    found = _parse(_Authorization, content)
    match found.status:
        case "authorized" if found.expires_at is not None:
            return Authorized(found.id, found.amount, found.expires_at)
        case "authorized":
            raise NoAnswer("unreadable_answer")
        case "declined":
            return Declined(found.decline_code or "declined")
        case "voided" | "expired":
            return Declined(f"authorization_{found.status}")
        case "processing":
            return Unknown("processing")


def _capture(content: bytes) -> CaptureMade:
    capture = _parse(_Capture, content)
    return CaptureMade(capture.id, capture.amount)


def _void(content: bytes) -> Voided:
    _parse(_Void, content)
    return Voided()


def _refund(content: bytes) -> Refunded:
    return Refunded(_parse(_Refund, content).id)


def _parse(model: type[M], content: bytes) -> M:
    try:
        return model.model_validate_json(content)
    except ValidationError:
        raise NoAnswer("unreadable_answer") from None


def _code(content: bytes) -> str | None:
    try:
        return _ErrorAnswer.model_validate_json(content).error.code
    except ValidationError:
        return None
