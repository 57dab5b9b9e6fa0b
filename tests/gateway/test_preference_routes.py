"""Preferences over HTTP, as far as no Kafka is needed: which webhooks the setting for tests lets through."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog

from runtime.settings import Settings
from tests.gateway.conftest import problem
from tests.gateway.test_promotion_routes import answers
from tests.support.parts import free_port


@pytest.mark.parametrize("url", ["http://hooks.example/x", "https://127.0.0.1/x"])
def test_a_webhook_to_anywhere_needs_the_setting_that_lets_it_be_sent(url: str, tmp_path: Path) -> None:
    put = ("PUT", "/v1/customers/ada/preferences", {"channel": "webhook", "webhook_url": url})
    nobody = f"127.0.0.1:{free_port()}"
    settings = Settings(data_dir=tmp_path, kafka_bootstrap=nobody, command_timeout=0.5)
    with structlog.testing.capture_logs():  # that nobody is there
        (refused,) = answers(settings, put, admin=False)
        (taken,) = answers(settings.model_copy(update={"webhooks_to_private": True}), put, admin=False)
    problem(refused, 422, "invalid-request", "webhook_url")
    problem(taken, 503, "kafka-unavailable")  # only storing it is left to do
