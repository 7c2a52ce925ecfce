"""What daphne is told that its command line has no words for.

Twisted would parse the body of every form by itself, all of it in memory, and read each Content-Type with the
parser of e-mails; Django does that where a form is wanted. And nobody reads the access log it would write.
"""

from __future__ import annotations

from typing import Any

from daphne import http_protocol, server


class Request(http_protocol.WebRequest):
    """A request whose body is left alone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, parsePOSTFormSubmission=False)


class Factory(http_protocol.HTTPFactory):
    """Connections whose requests are such, without an access log."""

    def buildProtocol(self, addr: Any) -> Any:  # noqa: N802  Twisted's name
        """One connection."""
        protocol = super().buildProtocol(addr)
        protocol.requestFactory = Request
        return protocol

    def log(self, request: Any) -> None:
        """Nothing: our own log says what failed, and metrics what was answered."""


def arrange() -> None:
    """Let the server that daphne is about to make use these."""
    server.HTTPFactory = Factory
