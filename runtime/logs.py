"""Structured logs: one JSON object a line on stderr, ours and every library's alike.

What is bound with `structlog.contextvars` (the correlation id, first of all) is in every line.
"""

from __future__ import annotations

import logging
import sys

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from runtime.settings import settings


def configure(name: str) -> None:
    """Set up this process's logs; `name` is the process as topology.yaml calls it. Level: `OMS_LOG_LEVEL`."""
    slot = settings().slot

    def add_process(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["process"], event["slot"] = name, slot
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_process,
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.UnicodeDecoder(),
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings().log_level.upper())
    # One line a request says nothing that the gateway's own line doesn't.
    for chatty in ("httpx", "httpcore", "urllib3", "aiohttp.access", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def operations(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger for lines of which there are thousands a second: the same JSON on stderr, without the way through the
    standard library, which costs more than handling a message does."""
    logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        structlog.BytesLogger(sys.stderr.buffer),
        processors=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(settings().log_level.lower()),
        cache_logger_on_first_use=True,
    ).bind(process=name, slot=settings().slot, level="info")
    return logger
