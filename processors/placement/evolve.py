"""evolve(placement, cause, policy) → placement: what a message means (`told` by the order, `answered` by stock,
promotions, scoring and payment), and then which step comes next (`advance`).

Here is decided what is *asked* of somebody: a need at a new version, an attempt that is charging, a timer. `react`
compares before and after, and sends just that.
"""

from __future__ import annotations

from processors.placement import imported
from processors.placement.answered import answered
from processors.placement.model import Cause, Placement
from processors.placement.steps import advance
from processors.placement.told import told
from schemas.base import Event
from schemas.events import OrderImported
from schemas.policy import Policy


def evolve(placement: Placement | None, cause: Cause, policy: Policy) -> Placement | None:
    """The placement after the message, the same object when it means nothing; None while there is no order."""
    if isinstance(cause, Event):
        if placement is not None and cause.version <= placement.version:
            return placement  # a repeat
        if placement is None and isinstance(cause.data, OrderImported) and cause.data.order is not None:
            return imported.placement(cause.data.order, policy).but(version=cause.version)
        heard = told(placement, cause, policy)
    else:
        heard = None if placement is None else answered(placement, cause.data, policy)
    return heard if heard is None or heard is placement else advance(heard, policy)
