"""Who calls: bearer JWTs. `sub` is the customer (or the member of staff), scope `orders:admin` makes it staff.

In development tokens are HS256 under a key made at first start; in production (`jwks_url`) they are an identity
provider's, checked with its published keys.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import jwt
import structlog
from cachetools import TTLCache

from gateway.problems import Problem, unavailable
from runtime.settings import Settings

STAFF = "orders:admin"
ASYMMETRIC = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
KEYS_FRESH = 300.0
"""Seconds after which the identity provider's keys are fetched again."""
CHECKED = 30.0
"""Seconds for which a token that was found good is not checked again (but for its expiry)."""
REFETCH_AFTER = 10.0
"""Seconds between two fetches at most, however many tokens name keys that nobody knows."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    id: str
    staff: bool

    @property
    def actor(self) -> str:
        """As messages name who did it."""
        return f"staff:{self.id}" if self.staff else f"customer:{self.id}"


def issue(settings: Settings, *, customer: str | None = None, admin: str | None = None, ttl: timedelta) -> str:
    """A development token for a customer or for a member of staff (exactly one of the two). ValueError when tokens
    are an identity provider's business here."""
    if settings.jwks_url:
        raise ValueError("tokens come from the identity provider here (OMS_JWKS_URL is set)")
    if (customer is None) == (admin is None):
        raise ValueError("name a customer or a member of staff")
    now = datetime.now(UTC)
    claims = {"sub": customer or admin, "aud": settings.jwt_audience, "iat": now, "exp": now + ttl}
    if admin is not None:
        claims["scope"] = STAFF
    return jwt.encode(claims, development_key(settings.jwt_key_path), algorithm="HS256")


def development_key(path: Path) -> bytes:
    """The HS256 key in this file (mode 0600), made when there is none yet."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=path.name, dir=path.parent)  # mode 0600
    fresh = Path(name)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_hex(32).encode())
    try:
        os.link(fresh, path)  # unlike a rename it never replaces the key of a process that was faster
    except FileExistsError:
        log.debug("another process made the key", path=str(path))
    finally:
        fresh.unlink()
    return path.read_bytes()


def unauthorized(detail: str) -> Problem:
    return Problem(
        "unauthorized",
        HTTPStatus.UNAUTHORIZED,
        detail,
        field="Authorization",
        headers={"WWW-Authenticate": 'Bearer realm="oms"'},
    )


class Authenticator:
    """Tells from an Authorization header who calls."""

    def __init__(self, settings: Settings) -> None:
        self._audience = settings.jwt_audience
        self._jwks = Jwks(settings.jwks_url) if settings.jwks_url else None
        self._key = b"" if self._jwks else development_key(settings.jwt_key_path)
        self._checked: TTLCache[str, tuple[Caller, float]] = TTLCache(10_000, CHECKED)

    async def caller(self, authorization: str | None) -> Caller:
        """Problem 401 without a valid token, 503 while the identity provider's keys can't be had."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise unauthorized("A bearer token is needed.")
        known = self._checked.get(token)
        if known is not None and known[1] > time.time():
            return known[0]
        try:
            if self._jwks is None:
                claims = self._claims(token, self._key, ["HS256"])
            else:
                claims = self._claims(token, await self._jwks.key_for(token), ASYMMETRIC)
        except jwt.ExpiredSignatureError:
            raise unauthorized("The token has expired.") from None
        except jwt.InvalidTokenError:
            raise unauthorized("The token is not valid here.") from None
        subject = claims["sub"]
        if not subject or len(subject) > 128 or not subject.isprintable():
            raise unauthorized("The token's subject is not usable as an id.")
        scope = claims.get("scope")
        caller = Caller(subject, isinstance(scope, str) and STAFF in scope.split())
        self._checked[token] = caller, float(claims["exp"])
        return caller

    def _claims(self, token: str, key: Any, algorithms: list[str]) -> dict[str, Any]:
        claims: dict[str, Any] = jwt.decode(
            token, key, algorithms=algorithms, audience=self._audience, options={"require": ["exp", "sub", "aud"]}
        )
        return claims


class Jwks:
    """An identity provider's keys, fetched in a thread and remembered."""

    def __init__(self, url: str) -> None:
        self._client = jwt.PyJWKClient(url, cache_jwk_set=False, timeout=5)
        self._keys: dict[str, Any] = {}
        self._fetched = -KEYS_FRESH
        self._tried = -REFETCH_AFTER
        self._lock = asyncio.Lock()

    async def key_for(self, token: str) -> Any:
        """The key that signed the token. InvalidTokenError when the provider has no such key."""
        kid = jwt.get_unverified_header(token).get("kid")
        if not isinstance(kid, str):
            raise jwt.InvalidTokenError("the token names no key")
        if kid not in self._keys or time.monotonic() - self._fetched > KEYS_FRESH:
            await self._refresh(kid)
        if kid not in self._keys:
            raise jwt.InvalidTokenError("nobody knows the token's key")
        return self._keys[kid]

    async def _refresh(self, kid: str) -> None:
        async with self._lock:
            now = time.monotonic()
            if now - self._tried < REFETCH_AFTER:
                if not self._keys:
                    raise unavailable("identity-provider-unavailable", "Tokens can't be checked at the moment.")
                return
            self._tried = now
            try:
                found = await asyncio.to_thread(self._client.get_signing_keys)
            except jwt.PyJWKClientError as error:
                # Keys that were good stay good while the provider is away.
                log.warning("the identity provider's keys can't be fetched", error=str(error))
                if kid not in self._keys:
                    raise unavailable(
                        "identity-provider-unavailable", "Tokens can't be checked at the moment."
                    ) from error
                return
            self._keys = {key.key_id: key.key for key in found if key.key_id}
            self._fetched = now
