"""Which requests are commands and which are queries: the two may have gateways of their own (OMS_GATEWAY_ROLE).

The proxy before such gateways splits in the same way (deploy/haproxy/haproxy.cfg; a test compares the two).
"""

from __future__ import annotations

import re
from enum import StrEnum
from http import HTTPStatus

from gateway.problems import Problem


class Role(StrEnum):
    """Of a gateway: which requests it answers. Of a request: which gateways answer it, ALL being any."""

    COMMAND = "command"
    QUERY = "query"
    ALL = "all"


_READING = frozenset({"GET", "HEAD"})
_WITH_COMMANDS = re.compile(
    r"/v1/(orders/[^/]+/commands/|customers/[^/]+/preferences$|admin/promotions(/|$))",
)
"""What is read where commands are taken: what came of one, and the tables in memory that only they need."""


def role_of(method: str, path: str) -> Role:
    """Of a request, or of a route by its template."""
    if path.startswith("/dashboard"):
        return Role.QUERY
    if not path.startswith("/v1/"):
        return Role.ALL
    return Role.QUERY if method in _READING and not _WITH_COMMANDS.match(path) else Role.COMMAND


def misdirected(role: Role, method: str, path: str) -> Problem | None:
    """421 for a request that a gateway of this role does not answer."""
    wanted = role_of(method, path)
    if Role.ALL in (role, wanted) or role is wanted:
        return None
    return Problem(
        "wrong-role",
        HTTPStatus.MISDIRECTED_REQUEST,
        f"This gateway has the role {role}, and this is for one with the role {wanted}.",
    )
