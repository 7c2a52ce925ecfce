"""Attachments and signatures, which come and go as multipart/mixed."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
from contextlib import suppress
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from tests.xapi.conftest import Store, statement
from usability.xapi import multipart
from usability.xapi.models import XapiAttachment, XapiStatement
from usability.xapi.multipart import Part
from usability.xapi.statement import SIGNATURE
from usability.xapi.values import Wrong

pytestmark = pytest.mark.django_db

PICTURE = b"\x89PNG\r\n\r\n--looks like a boundary--\0\xff"


def described(content: bytes, **fields: Any) -> dict[str, Any]:
    return {
        "usageType": "https://maths.example/picture",
        "display": {"en": "A picture"},
        "contentType": "image/png",
        "length": len(content),
        "sha2": hashlib.sha256(content).hexdigest(),
    } | fields


def part(content: bytes, content_type: str = "image/png") -> Part:
    return Part(
        content,
        {
            "Content-Type": content_type,
            "Content-Transfer-Encoding": "binary",
            "X-Experience-API-Hash": hashlib.sha256(content).hexdigest(),
        },
    )


def mixed(body: Any, *parts: Part) -> dict[str, Any]:
    first = Part(json.dumps(body).encode(), {"Content-Type": "application/json"})
    content_type, whole = multipart.put_together([first, *parts])
    return {"body": whole, "content_type": content_type}


def test_an_attachment_comes_back_as_it_was_sent_and_only_when_asked_for(store: Store) -> None:
    sent = statement() | {"attachments": [described(PICTURE)]}
    answer = store("POST", "statements", **mixed([sent, statement("ben")], part(PICTURE)))

    plain = store("GET", "statements")
    whole = store("GET", "statements", attachments="true")

    assert answer.status_code == 200
    assert plain.headers["Content-Type"] == "application/json"
    boundary = multipart.boundary_of(whole.headers["Content-Type"])
    first, second = multipart.taken_apart(whole.content, boundary)
    assert json.loads(first.content) == plain.json()
    assert second.content == PICTURE
    assert second.headers["content-type"] == "image/png"
    assert XapiAttachment.objects.count() == 1


@pytest.mark.parametrize(
    ("attachments", "parts"),
    [
        ([described(PICTURE)], []),
        ([], [part(PICTURE)]),
        ([described(PICTURE)], [part(PICTURE), part(b"other")]),
        ([described(PICTURE)], [Part(PICTURE, {"X-Experience-API-Hash": described(PICTURE)["sha2"]})]),
        ([described(PICTURE)], [Part(b"changed", part(PICTURE).headers)]),
    ],
)
def test_parts_and_attachments_must_agree(
    store: Store, attachments: list[dict[str, Any]], parts: list[Part]
) -> None:
    sent = statement() | {"attachments": attachments}

    answer = store("POST", "statements", **mixed(sent, *parts))

    assert answer.status_code == 400, answer.content
    assert not XapiStatement.objects.exists()


def test_an_attachment_may_be_elsewhere(store: Store) -> None:
    there = described(PICTURE, fileUrl="https://files.example/p.png")

    assert store.put(statement() | {"attachments": [there]})


def test_a_body_that_is_larger_than_five_mebibytes_is_refused(store: Store) -> None:
    content = b"x" * (5 * 1024 * 1024)
    sent = statement() | {"attachments": [described(content)]}

    assert store("POST", "statements", **mixed(sent, part(content))).status_code == 413


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=4))
def test_what_is_put_together_is_taken_apart_again(contents: list[bytes]) -> None:
    content_type, whole = multipart.put_together([Part(one, {"Content-Type": "a/b"}) for one in contents])

    found = multipart.taken_apart(whole, multipart.boundary_of(content_type))

    assert [one.content for one in found] == contents


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(body: bytes) -> None:
    with suppress(Wrong):
        assert multipart.taken_apart(b"--b\r\n" + body + b"\r\n--b--", "b")


# ---------------------------------------------------------------- signatures

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def url64(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def certificate(key: Any = KEY) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a signer")])
    now = dt.datetime.now(tz=dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return base64.b64encode(made.public_bytes(serialization.Encoding.DER)).decode()


def signed(
    told: dict[str, Any], *, payload: dict[str, Any] | None = None, key: Any = KEY, **header: Any
) -> dict[str, Any]:
    head = url64(json.dumps({"alg": "RS256"} | header).encode())
    body = url64(json.dumps(payload or told).encode())
    jws = head + b"." + body + b"." + url64(key.sign(head + b"." + body, padding.PKCS1v15(), hashes.SHA256()))
    attachment = described(jws, usageType=SIGNATURE, contentType="application/octet-stream")
    return mixed(told | {"attachments": [attachment]}, part(jws, "application/octet-stream"))


def test_a_signed_statement_is_stored(store: Store) -> None:
    assert store("POST", "statements", **signed(statement())).status_code == 200
    assert store("POST", "statements", **signed(statement(), x5c=[certificate()])).status_code == 200


def test_a_signature_of_another_statement_is_refused(store: Store) -> None:
    answer = store("POST", "statements", **signed(statement(), payload=statement("ben")))

    assert answer.status_code == 400
    assert "not this statement" in answer.json()["detail"]


def test_a_signature_that_its_certificate_did_not_make_is_refused(store: Store) -> None:
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    answer = store("POST", "statements", **signed(statement(), key=stranger, x5c=[certificate()]))

    assert answer.status_code == 400


@pytest.mark.parametrize("algorithm", ["none", "HS256", "ES256", 7])
def test_only_rsa_signatures_are_taken(store: Store, algorithm: Any) -> None:
    assert store("POST", "statements", **signed(statement(), alg=algorithm)).status_code == 400


def test_a_signature_must_be_in_the_request(store: Store) -> None:
    there = described(
        b"x", usageType=SIGNATURE, contentType="application/octet-stream", fileUrl="https://a.example/x"
    )

    assert store("POST", "statements", statement() | {"attachments": [there]}).status_code == 400
