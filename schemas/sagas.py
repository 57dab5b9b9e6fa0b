"""Families whose messages come with later issues. Their topics exist from the first release on, because the state of
a saga is bound to its set of input topics (decision 0003)."""

from schemas.base import Family, Message

for _name in ("promotion.results", "fraud.results", "shipping.results"):
    Family(_name, Message)
