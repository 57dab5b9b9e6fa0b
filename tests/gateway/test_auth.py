"""Tokens: whose they are, and which are refused."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from gateway import auth
from gateway.auth import Authenticator, Caller, development_key, issue
from gateway.problems import Problem
from runtime.settings import Settings

HOUR = timedelta(hours=1)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


def caller(authenticator: Authenticator, token: str, scheme: str = "Bearer") -> Caller:
    return asyncio.run(authenticator.caller(f"{scheme} {token}"))


def refused(authenticator: Authenticator, authorization: str | None) -> Problem:
    with pytest.raises(Problem) as error:
        asyncio.run(authenticator.caller(authorization))
    return error.value


def test_a_token_says_who_calls(settings: Settings) -> None:
    authenticator = Authenticator(settings)
    ada = caller(authenticator, issue(settings, customer="ada", ttl=HOUR))
    assert (ada, ada.actor) == (Caller("ada", staff=False), "customer:ada")
    root = caller(authenticator, issue(settings, admin="root", ttl=HOUR), scheme="bearer")
    assert (root, root.actor) == (Caller("root", staff=True), "staff:root")


def test_a_development_token_names_one_of_the_two(settings: Settings) -> None:
    for names in ({}, {"customer": "a", "admin": "b"}):
        with pytest.raises(ValueError, match="customer or a member of staff"):
            issue(settings, **names, ttl=HOUR)


def signed(settings: Settings, **claims: Any) -> str:
    whole = {"sub": "ada", "aud": "oms", "exp": 4102444800, **claims}
    whole = {name: value for name, value in whole.items() if value is not None}
    return jwt.encode(whole, development_key(settings.jwt_key_path), algorithm="HS256")


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": None},
        {"exp": 1},
        {"aud": None},
        {"aud": "somebody-else"},
        {"sub": None},
        {"sub": ""},
        {"sub": "x" * 129},
        {"sub": "a\nb"},
        {"nbf": 4102444000},
    ],
)
def test_a_token_with_wrong_claims_is_refused(settings: Settings, claims: dict[str, Any]) -> None:
    found = refused(Authenticator(settings), f"Bearer {signed(settings, **claims)}")
    assert (found.type, found.status) == ("unauthorized", 401)


@pytest.mark.parametrize("scope", ["orders:administrator", "xorders:admin", "", ["orders:admin"], 7])
def test_only_the_exact_scope_makes_staff(settings: Settings, scope: Any) -> None:
    assert not caller(Authenticator(settings), signed(settings, scope=scope)).staff
    assert caller(Authenticator(settings), signed(settings, scope="openid orders:admin")).staff


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer ", "Basic YTpi", "Bearer x", "Bearer a.b.c"])
def test_what_is_no_token_is_refused(settings: Settings, authorization: str | None) -> None:
    found = refused(Authenticator(settings), authorization)
    assert found.status == 401
    assert "WWW-Authenticate" in found.headers


def test_a_token_of_another_key_is_refused(settings: Settings, tmp_path: Path) -> None:
    other = Settings(data_dir=tmp_path / "other")
    assert refused(Authenticator(settings), f"Bearer {issue(other, customer='ada', ttl=HOUR)}").status == 401
    unsigned = jwt.encode({"sub": "ada", "aud": "oms", "exp": 4102444800}, "", algorithm="none")
    assert refused(Authenticator(settings), f"Bearer {unsigned}").status == 401


def test_the_key_is_made_once_and_is_nobody_elses_business(settings: Settings) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: development_key(settings.jwt_key_path), range(32)))
    assert len(keys) == 1
    assert len(keys.pop()) >= 32
    assert stat.S_IMODE(settings.jwt_key_path.stat().st_mode) == 0o600
    assert [file.name for file in settings.jwt_key_path.parent.iterdir()] == ["jwt.key"]


class Provider:
    """An identity provider: publishes keys over HTTP, signs tokens, and can be down."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.down = False
        self.fetched = 0
        self.keys: dict[str, Any] = {"one": rsa.generate_private_key(65537, 2048)}

    def published(self) -> bytes:
        found = []
        for kid, key in self.keys.items():
            algorithm = (
                jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
            )
            found.append({**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"})
        return json.dumps({"keys": found}).encode()

    def token(self, kid: str = "one", algorithm: str = "RS256", key: Any = None) -> str:
        claims = {"sub": "ada", "aud": "oms", "exp": 4102444800}
        return jwt.encode(claims, key or self.keys[kid], algorithm=algorithm, headers={"kid": kid})


@pytest.fixture
def provider() -> Iterator[Provider]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.fetched += 1
            body = b"" if found.down else found.published()
            self.send_response(503 if found.down else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Provider(f"http://127.0.0.1:{server.server_address[1]}/keys")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_identity_providers_tokens_are_taken(settings: Settings, provider: Provider) -> None:
    authenticator = Authenticator(settings.model_copy(update={"jwks_url": provider.url}))
    for _ in range(3):
        assert caller(authenticator, provider.token()) == Caller("ada", staff=False)
    assert provider.fetched == 1
    assert not settings.jwt_key_path.exists()
    with pytest.raises(ValueError, match="identity provider"):
        issue(settings.model_copy(update={"jwks_url": provider.url}), customer="ada", ttl=HOUR)


def test_a_development_token_is_not_taken_in_production(settings: Settings, provider: Provider) -> None:
    authenticator = Authenticator(settings.model_copy(update={"jwks_url": provider.url}))
    assert refused(authenticator, f"Bearer {issue(settings, admin='root', ttl=HOUR)}").status == 401
    # The published key is no secret; it must not pass for one.
    head, claims, _ = provider.token().split(".")
    head = base64.urlsafe_b64encode(b'{"alg": "HS256", "kid": "one"}').decode().rstrip("=")
    mac = hmac.new(provider.published(), f"{head}.{claims}".encode(), "sha256").digest()
    forged = f"{head}.{claims}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"
    assert refused(authenticator, f"Bearer {forged}").status == 401


def test_a_new_key_is_found_but_nobody_can_make_us_ask_all_the_time(
    settings: Settings, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    authenticator = Authenticator(settings.model_copy(update={"jwks_url": provider.url}))
    stranger = rsa.generate_private_key(65537, 2048)
    for i in range(5):
        assert refused(authenticator, f"Bearer {provider.token(kid=f'k{i}', key=stranger)}").status == 401
    assert provider.fetched == 1
    monkeypatch.setattr(auth, "REFETCH_AFTER", 0.0)
    provider.keys["two"] = ec.generate_private_key(ec.SECP256R1())
    assert caller(authenticator, provider.token("two", "ES256")).id == "ada"


def test_a_provider_that_is_down(settings: Settings, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "REFETCH_AFTER", 0.0)
    authenticator = Authenticator(settings.model_copy(update={"jwks_url": provider.url}))
    provider.down = True
    found = refused(authenticator, f"Bearer {provider.token()}")
    assert (found.type, found.status) == ("identity-provider-unavailable", 503)
    provider.down = False
    assert caller(authenticator, provider.token()).id == "ada"
    provider.down = True
    monkeypatch.setattr(auth, "KEYS_FRESH", 0.0)  # known keys stay good while the provider is away
    assert caller(authenticator, provider.token()).id == "ada"
