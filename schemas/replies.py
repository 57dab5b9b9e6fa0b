"""What comes back from a command: to the gateway that waits (`order.replies`), and, for commands that no gateway
sent, the refusals (`order.rejections`)."""

from __future__ import annotations

from pydantic import Field

from schemas.base import Family, Message, Model, Payload
from schemas.inventory import StockLevel
from schemas.order import Order
from schemas.promotion import PromotionLevel


class Rejection(Model):
    """Why a command was refused, as data. `type` is stable and names the rule."""

    type: str = Field(description="kebab-case, the last part of the problem's type URI")
    detail: str
    status: int = Field(default=409, description="the HTTP status that fits")
    field: str | None = Field(default=None, description="the field of the request that is at fault, items[0].sku")
    extra: dict[str, str] = {}


IDEMPOTENCY_KEY_REUSED = Rejection(
    type="idempotency-key-reused",
    status=422,
    field="Idempotency-Key",
    detail="This idempotency key was used before with another body.",
)

Family("order.replies", Message)
Family("order.rejections", Message)


class CommandOutcome(Payload, family="order.replies"):
    """The one outcome of a command. `order` is the order after it (also when it was refused, if there is one)."""

    command_id: str
    accepted: bool
    version: int
    rejection: Rejection | None = None
    order: Order | None = None


class StockOutcome(Payload, family="order.replies"):
    """The outcome of a stock adjustment by staff."""

    command_id: str
    accepted: bool
    rejection: Rejection | None = None
    level: StockLevel | None = None


class PromotionOutcome(Payload, family="order.replies"):
    """The outcome of PutPromotion."""

    command_id: str
    accepted: bool
    rejection: Rejection | None = None
    level: PromotionLevel | None = None


class CommandRejected(Payload, family="order.rejections"):
    command_id: str
    command: str
    status: str | None = None
    version: int = 0
    rejection: Rejection
    actor: str = Field(default="", description="whose command it was: system:PROCESS")
