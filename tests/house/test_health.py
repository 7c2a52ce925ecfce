"""Health, readiness and what the processes tell about themselves."""

from __future__ import annotations

import dataclasses
import json
import logging
import logging.config
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test import Client

from gaia_site import telemetry
from gaia_site.env import LogFormat

NOBODY_LISTENS = "http://127.0.0.1:9"


class ReadyNode(BaseHTTPRequestHandler):
    """A node that knows a leader."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def node_url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), ReadyNode)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def with_settings(settings: Any, **changes: Any) -> None:
    settings.GAIA = dataclasses.replace(settings.GAIA, **changes)


@pytest.mark.parametrize("path", ["/healthz", "/healthz/"])
def test_a_process_that_answers_is_healthy(client: Client, path: str) -> None:
    answer = client.get(path)

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.django_db
def test_it_is_ready_with_database_broker_and_leader(client: Client, settings: Any, node_url: str) -> None:
    with_settings(settings, cluster_node_urls=(NOBODY_LISTENS, node_url))

    answer = client.get("/readyz")

    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "missing": []})


@pytest.mark.django_db
def test_without_a_node_that_knows_a_leader_it_is_not_ready(client: Client, settings: Any) -> None:
    with_settings(settings, cluster_node_urls=(NOBODY_LISTENS,))

    answer = client.get("/readyz")

    assert (answer.status_code, answer.json()["missing"]) == (503, ["leader"])


@pytest.mark.django_db
def test_without_its_broker_it_is_not_ready(client: Client, settings: Any, node_url: str) -> None:
    with_settings(settings, cluster_node_urls=(node_url,), redis_url="unix:///nowhere/redis.sock?db=0")

    answer = client.get("/readyz")

    assert (answer.status_code, answer.json()["missing"]) == (503, ["broker"])


@pytest.mark.django_db
def test_where_no_broker_is_configured_none_is_missing(client: Client, settings: Any, node_url: str) -> None:
    with_settings(settings, cluster_node_urls=(node_url,), redis_url=None)

    assert client.get("/readyz").status_code == 200


@pytest.mark.django_db
def test_without_its_database_it_is_not_ready(
    client: Client, settings: Any, node_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_settings(settings, cluster_node_urls=(node_url,))

    def refused() -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr(connection, "cursor", refused)

    answer = client.get("/readyz")

    assert (answer.status_code, answer.json()["missing"]) == (503, ["database"])


def test_metrics_are_in_the_text_format_of_prometheus(client: Client) -> None:
    answer = client.get("/metrics")

    assert answer["Content-Type"].startswith("text/plain")
    assert b"# TYPE gaia_http_requests_total counter" in answer.content


def test_the_time_a_block_takes_is_observed() -> None:
    from prometheus_client import CollectorRegistry, Histogram

    registry = CollectorRegistry()
    histogram = Histogram("block_seconds", "A block", registry=registry)

    with telemetry.timed(histogram):
        pass

    assert registry.get_sample_value("block_seconds_count") == 1


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    made = logging.getLogger("gaia.test.health")
    made.propagate = False
    yield made
    for handler in list(made.handlers):
        made.removeHandler(handler)


def formatter_of(log_format: LogFormat) -> logging.Formatter:
    described = telemetry.logging_config(level="INFO", log_format=log_format)["formatters"]["structured"]
    return described.pop("()")(**described)


@pytest.mark.parametrize("log_format", list(LogFormat))
def test_a_logged_failure_shows_no_local_variables(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str], log_format: LogFormat
) -> None:
    """They hold keys and bodies, and drawing them stopped a web process for seconds."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter_of(log_format))
    logger.addHandler(handler)
    held = "a-secret-of-somebody"

    try:
        raise LookupError(len(held))
    except LookupError:
        logger.exception("request_failed")

    written = capsys.readouterr().err
    assert "LookupError: 20" in written
    assert "a-secret-of-somebody" not in written


def test_a_log_line_is_one_json_object_with_event_and_fields(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(formatter_of(LogFormat.JSON))
    logger.addHandler(handler)

    logger.info("task_assigned", extra={"task": "t1"})

    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["task"], line["level"], line["logger"]) == (
        "task_assigned",
        "t1",
        "info",
        "gaia.test.health",
    )
    assert line["timestamp"].endswith("Z")


def test_for_people_it_is_one_line_of_text(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(formatter_of(LogFormat.CONSOLE))
    logger.addHandler(handler)

    logger.info("task_assigned", extra={"task": "t1"})

    (line,) = capsys.readouterr().err.splitlines()
    assert "task_assigned" in line
    assert "task=t1" in line
