"""How the processes tell what they do: structured log lines and Prometheus metrics."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, Histogram, generate_latest

from gaia_site.env import LogFormat

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUESTS = Counter("gaia_http_requests_total", "Answered HTTP requests", ["method", "status"])
REQUEST_SECONDS = Histogram(
    "gaia_http_request_seconds",
    "Time from the first byte of a request to the last of its answer",
    ["method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
)
REQUESTS_OPEN = Gauge("gaia_http_requests_open", "HTTP requests being answered")


def exposition() -> tuple[bytes, str]:
    """All metrics of this process in Prometheus' text format, and its content type."""
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST


@contextmanager
def timed(histogram: Histogram) -> Iterator[None]:
    """Observe in seconds how long the block takes."""
    began = time.perf_counter()
    try:
        yield
    finally:
        histogram.observe(time.perf_counter() - began)


_SHARED = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


class WithoutAddress(logging.Filter):
    """Takes out of Django's own lines what the caller wrote: address, query, host, origin.

    A pseudonym, a key for a beacon or worse may stand in an address. The route says as much to an operator.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Every line passes, some of them changed; but for "not ready", which the one who asks is told."""
        if record.name.startswith("django.security"):
            # The message and the end of the traceback both quote what was refused.
            record.msg, record.args, record.exc_info = record.name.rpartition(".")[2], (), None
        elif record.name == "django.request":
            match = getattr(getattr(record, "request", None), "resolver_match", None)
            if match and match.route.startswith("^readyz"):
                return False
            said = record.args[0] if isinstance(record.args, tuple) and record.args else "request"
            record.msg, record.args = "%s: %s", (said, match.route if match else "no such address")
        record.__dict__.pop("request", None)
        return True


def logging_config(*, level: str, log_format: LogFormat) -> dict[str, Any]:
    """The `logging` configuration of every process: an event name and fields, one line each, on stderr."""
    if log_format is LogFormat.JSON:
        rendering = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        # The pretty traceback shows every local variable: keys and bodies among them, and it takes seconds to draw.
        rendering = [
            structlog.dev.ConsoleRenderer(
                colors=False, pad_event_to=28, exception_formatter=structlog.dev.plain_traceback
            )
        ]
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structured": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": _SHARED,
                "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
            }
        },
        "filters": {"without_address": {"()": WithoutAddress}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "structured",
                "filters": ["without_address"],
            }
        },
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            "django.server": {"handlers": [], "propagate": True},
            "django.channels.server": {"level": "WARNING"},
            "daphne": {"level": "WARNING"},
            "uvicorn": {"level": "ERROR"},  # a client's broken request is the client's affair
            "axes": {"level": "WARNING"},
        },
    }


structlog.configure(
    processors=[*_SHARED[:3], _SHARED[4], structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
    cache_logger_on_first_use=True,
)
