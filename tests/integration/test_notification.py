"""Messages to customers: real SMTP, a real webhook, the outbox; and the worker on a real broker, killed in between."""

from __future__ import annotations

import asyncio
import email.policy
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from email import message_from_bytes
from email.message import EmailMessage
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import uuid4

import aiohttp
import orjson
import pytest
from aiohttp import web
from aiosmtpd.controller import Controller

from processors.notification.channels import Letter, NotDelivered, Outbox, PublicResolver, Refused, Smtp, Webhook
from processors.notification.templates import render
from processors.notification.worker import ATTEMPTS, NotificationWorker
from runtime import kafka, workers
from runtime.keystore import vault
from runtime.settings import Settings
from schemas.base import Message, Payload
from schemas.codec import decode, encode
from schemas.notification import NoticeFailed, NoticeLine, NoticeSent, NoticeSkipped, Preferences, SendNotice
from tests.support.examples import T0
from tests.support.parts import free_port, oms_run, until

T = TypeVar("T", bound=Callable[..., Any])


def in_a_loop(test: T) -> T:
    """Run an async test in an event loop of its own."""

    @wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return cast(T, run)


SENDER = "The Shop <orders@shop.example>"


class Mailbox:
    """What the SMTP server took; it answers `says` to each recipient."""

    def __init__(self) -> None:
        self.taken: list[EmailMessage] = []
        self.says = "250 OK"

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if self.says.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.says

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        found = message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(found, EmailMessage)
        self.taken.append(found)
        return "250 taken"


@contextmanager
def smtp_server() -> Iterator[tuple[Mailbox, str]]:
    mailbox, port = Mailbox(), free_port()
    controller = Controller(mailbox, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield mailbox, f"smtp://127.0.0.1:{port}"
    finally:
        controller.stop()


def notice(kind: str = "shipped", **changes: Any) -> SendNotice:
    values: dict[str, Any] = {
        "kind": kind,
        "event_id": str(uuid4()),
        "customer_id": "42",
        "order_number": "ABCDE-FGHJK",
        "occurred_at": T0,
        "lines": (NoticeLine(name="Tasse", sku="MUG", quantity=2, total="23.80 EUR"),),
        "carrier": "Parcels",
        "tracking_number": "T-1",
        "tracking_url": "https://track.example/T-1",
        "amount": "10.00 EUR",
    }
    return SendNotice(**{**values, **changes})


def letter(to: str, **changes: Any) -> Letter:
    found = notice(**changes)
    return Letter(f"<{found.event_id}@shop.example>", to, found, render(found, "de"))


# The channels


@in_a_loop
async def test_an_email_has_both_forms_and_its_message_id() -> None:
    with smtp_server() as (mailbox, url):
        sent = letter("ada@example.org")
        await Smtp(url, SENDER).send(sent)
        await Smtp(url, SENDER).send(sent)
    first, again = mailbox.taken
    assert first["Message-ID"] == again["Message-ID"] == sent.message_id
    assert (first["To"], first["From"]) == ("ada@example.org", SENDER)
    assert "unterwegs" in first["Subject"]
    plain, html = first.get_body(("plain",)), first.get_body(("html",))
    assert plain is not None
    assert html is not None
    assert "https://track.example/T-1" in plain.get_content()
    assert 'href="https://track.example/T-1"' in html.get_content()


@in_a_loop
async def test_a_recipient_that_there_is_not_is_refused_and_a_busy_server_is_tried_again() -> None:
    with smtp_server() as (mailbox, url):
        mailbox.says = "550 no such user"
        with pytest.raises(Refused):
            await Smtp(url, SENDER).send(letter("nobody@example.org"))
        mailbox.says = "451 later"
        with pytest.raises(NotDelivered):
            await Smtp(url, SENDER).send(letter("ada@example.org"))
    with pytest.raises(NotDelivered):
        await Smtp(url, SENDER).send(letter("ada@example.org"))  # nobody is there any more


@pytest.mark.parametrize("url", ["http://mail.example", "smtp://", "mail.example:25"])
def test_an_smtp_url_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="OMS_SMTP_URL"):
        Smtp(url, SENDER)


@asynccontextmanager
async def webhook_server(answer: Callable[[], int]) -> AsyncIterator[tuple[list[tuple[Any, bytes]], str]]:
    seen: list[tuple[Any, bytes]] = []

    async def take(request: web.Request) -> web.Response:
        seen.append((request.headers.copy(), await request.read()))
        return web.Response(status=answer(), headers={"Location": "http://169.254.169.254/"})

    app = web.Application()
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield seen, f"http://127.0.0.1:{port}/hook"
    finally:
        await runner.cleanup()


@in_a_loop
async def test_a_webhook_is_signed_and_carries_the_facts() -> None:
    async with webhook_server(lambda: 204) as (seen, url), aiohttp.ClientSession() as session:
        sent = letter(url, status="PROCESSING")  # as the notices processor of a release before wrote it
        await Webhook(session, b"secret", private=True).send(sent)
    ((headers, body),) = seen
    signature = dict(part.split("=") for part in headers["OMS-Signature"].split(","))
    expected = hmac.new(b"secret", signature["t"].encode() + b"." + body, hashlib.sha256).hexdigest()
    assert signature["v1"] == expected
    assert headers["Idempotency-Key"] == sent.message_id
    facts = orjson.loads(body)
    assert (facts["message_id"], facts["kind"]) == (sent.message_id, "shipped")
    assert facts["tracking_url"] == "https://track.example/T-1"
    assert "status" not in facts, "it may have changed since"


@pytest.mark.parametrize(("status", "error"), [(500, NotDelivered), (302, NotDelivered), (410, Refused)])
@in_a_loop
async def test_a_webhook_that_is_not_taken(status: int, error: type[Exception]) -> None:
    async with webhook_server(lambda: status) as (seen, url), aiohttp.ClientSession() as session:
        with pytest.raises(error):
            await Webhook(session, b"s", private=True).send(letter(url))
    assert len(seen) == 1, "a redirect is not followed"


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example/x",
        "https://127.0.0.1/x",
        "https://[::1]/x",
        "https://169.254.169.254/",
        "https://[x",
        "nonsense",
    ],
)
@in_a_loop
async def test_a_webhook_goes_to_named_hosts_over_https_only(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(Refused):
            await Webhook(session, b"s").send(letter(url))


@in_a_loop
async def test_a_webhook_does_not_reach_into_our_own_network() -> None:
    connector = aiohttp.TCPConnector(resolver=PublicResolver())
    async with aiohttp.ClientSession(connector=connector) as session:
        with pytest.raises(NotDelivered):
            await Webhook(session, b"s").send(letter("https://localhost:1/x"))


@in_a_loop
async def test_the_outbox_has_a_file_for_each_message_and_a_repeat_replaces_it(tmp_path: Path) -> None:
    mail, text = letter("ada@example.org"), letter("+491701234567")
    for _ in range(2):
        await Outbox(tmp_path, SENDER, "email").send(mail)
        await Outbox(tmp_path, SENDER, "sms").send(text)
    (eml,) = (tmp_path / "email").iterdir()
    assert message_from_bytes(eml.read_bytes())["Message-ID"] == mail.message_id
    (sms,) = (tmp_path / "sms").iterdir()
    assert "https://track.example/T-1" in sms.read_text()


# The worker


class Recorder:
    """A channel that keeps what it got, or raises what it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.letters: list[Letter] = []
        self.error = error

    async def send(self, letter: Letter) -> None:
        if self.error is not None:
            raise self.error
        self.letters.append(letter)


def command(data: Payload) -> Message[Any]:
    return Message(id=str(uuid4()), at=T0, actor="system:notices", correlation_id="c", order_id=str(uuid4()), data=data)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


def wishes(settings: Settings, **changes: Any) -> Preferences:
    contact = vault(settings).seal("42", {"email": "ada@example.org", "phone": "+491701234567"})
    values: dict[str, Any] = {"customer_id": "42", "contact": contact, "channel": "email", "language": "fr"}
    return Preferences(**{**values, **changes})


async def said(
    settings: Settings, known: Preferences | None, channel: Recorder, asked: SendNotice, attempt: int = 0
) -> Payload:
    channels = {"email": channel, "sms": channel}
    worker = NotificationWorker({"42": known} if known else {}, vault(settings), channels, "shop.example")
    (out,) = await worker.handle(command(asked), attempt)
    assert (out.topic, out.key) == ("notification.events", "42")
    payload: Payload = out.message.data
    return payload


@in_a_loop
async def test_a_message_goes_by_the_preferred_channel_and_language(settings: Settings) -> None:
    channel = Recorder()
    result = await said(settings, wishes(settings, channel="sms"), channel, notice())
    assert isinstance(result, NoticeSent)
    assert (result.channel, result.language) == ("sms", "fr")
    (sent,) = channel.letters
    assert (sent.to, sent.message_id) == ("+491701234567", result.message_id)
    assert "en route" in sent.rendered.subject


@in_a_loop
async def test_one_message_id_an_event_and_channel(settings: Settings) -> None:
    channel, asked = Recorder(), notice()
    for known in (wishes(settings), wishes(settings), wishes(settings, channel="sms")):
        await said(settings, known, channel, asked)
    first, again, other = (sent.message_id for sent in channel.letters)
    assert first == again
    assert first != other


@in_a_loop
async def test_who_opted_out_gets_nothing_optional_but_what_the_contract_needs(settings: Settings) -> None:
    channel, known = Recorder(), wishes(settings, opt_outs=("delivered", "shipped"))
    skipped = await said(settings, known, channel, notice("delivered"))
    assert isinstance(skipped, NoticeSkipped)
    assert skipped.reason == "opted_out"
    assert isinstance(await said(settings, known, channel, notice("shipped")), NoticeSent)
    assert len(channel.letters) == 1


@in_a_loop
async def test_without_an_address_it_is_skipped_and_told(settings: Settings) -> None:
    nobody = await said(settings, None, Recorder(), notice())
    assert isinstance(nobody, NoticeSkipped)
    assert nobody.reason == "no_contact"
    known = wishes(settings)
    vault(settings).erase("42")
    forgotten = await said(settings, known, Recorder(), notice())
    assert isinstance(forgotten, NoticeSkipped)
    assert forgotten.reason == "forgotten"


@in_a_loop
async def test_a_failure_is_tried_again_and_visible_in_the_end(settings: Settings) -> None:
    known = wishes(settings)
    with pytest.raises(workers.TryLater):
        await said(settings, known, Recorder(NotDelivered("451")), notice())
    failed = await said(settings, known, Recorder(NotDelivered("451")), notice(), attempt=ATTEMPTS - 1)
    assert isinstance(failed, NoticeFailed)
    refused = await said(settings, known, Recorder(Refused("550")), notice())
    assert isinstance(refused, NoticeFailed)
    assert (refused.error, refused.channel) == ("550", "email")


@pytest.mark.stack
def test_a_killed_worker_sends_what_was_left_with_the_same_ids(broker: Settings, tmp_path: Path) -> None:
    settings = broker.model_copy(update={"data_dir": tmp_path})
    producer = kafka.producer(settings)
    customer = f"c-{uuid4()}"
    contact = vault(settings).seal(customer, {"email": "ada@example.org"})
    known = Preferences(customer_id=customer, contact=contact, channel="email", language="en")
    producer.produce("customer.preferences", key=customer.encode(), value=encode(command(known)))
    asked = [command(notice(customer_id=customer)) for _ in range(40)]

    def send(some: list[Message[Any]]) -> None:
        for one in some:
            producer.produce("notification.commands", key=customer.encode(), value=encode(one))
        assert producer.flush(20) == 0

    def outcomes(results: dict[str, set[str]]) -> bool:
        while (record := consumer.poll(0.05)) is not None:
            message = decode(record.value())
            if isinstance(message.data, NoticeSent):
                results.setdefault(message.data.event_id, set()).add(message.data.message_id)
        return set(results) >= {one.data.event_id for one in asked}

    consumer = kafka.consumer(settings, f"test-{uuid4()}")
    consumer.subscribe(["notification.events"])
    results: dict[str, set[str]] = {}
    try:
        with smtp_server() as (mailbox, url):
            with oms_run("notification", settings, tmp_path, OMS_SMTP_URL=url) as worker:
                send(asked[:20])
                until(lambda: len(mailbox.taken) >= 5, "some were sent")
                worker.kill()
            send(asked[20:])
            with oms_run("notification", settings, tmp_path, OMS_SMTP_URL=url):
                until(lambda: outcomes(results), "every message has its outcome")
    finally:
        consumer.close()
    assert all(len(ids) == 1 for ids in results.values()), "a repeat has the same Message-ID"
    assert {mail["Message-ID"] for mail in mailbox.taken} == {next(iter(ids)) for ids in results.values()}
