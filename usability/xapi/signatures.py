"""Signed statements: the signature is a JWS whose payload is the statement, and it is checked on receipt.

xAPI 1.0.3, part two, section 2.6; IEEE 9274.1.1, section 4.2.8; RFC 7515 (compact form), RFC 7518 (RS256, RS384,
RS512). Where the header brings the signer's certificate (`x5c`), the signature itself must be right by its key. Who
the signer is, nobody vouches for: no chain is followed and no certificate is fetched.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from usability.xapi import sameness
from usability.xapi.statement import SIGNATURE, statement
from usability.xapi.values import Place, Wrong
from usability.xapi.versions import Version

ALGORITHMS: dict[str, type[hashes.HashAlgorithm]] = {
    "RS256": hashes.SHA256,
    "RS384": hashes.SHA384,
    "RS512": hashes.SHA512,
}
KEY_BITS_LIMIT = 8_192


def is_signature(attachment: dict[str, Any]) -> bool:
    """Whether an attachment says that it is the signature of its statement."""
    return attachment["usageType"] == SIGNATURE


def check(
    signed: dict[str, Any], attachment: dict[str, Any], content: bytes, loc: Place, version: Version
) -> None:
    """Raises Wrong unless `content` is a signature of this very statement."""
    if attachment["contentType"].partition(";")[0].strip().lower() != "application/octet-stream":
        raise Wrong((*loc, "contentType"), "a signature has the type application/octet-stream")
    parts = content.split(b".")
    if len(parts) != 3:
        raise Wrong(loc, "a signature is a JWS in its compact form")
    header = _json(parts[0], loc, "the header of the JWS")
    algorithm = header.get("alg")
    if algorithm not in ALGORITHMS:
        raise Wrong(loc, f"a signature needs one of the algorithms {', '.join(ALGORITHMS)}")
    payload = _json(parts[1], loc, "the payload of the JWS")
    if sameness.digest(_as_told(statement(payload, loc, version))) != sameness.digest(_as_told(signed)):
        raise Wrong(loc, "what was signed is not this statement")
    _check_key(header, parts, ALGORITHMS[algorithm](), loc)


def _as_told(whole: dict[str, Any]) -> dict[str, Any]:
    """Without attachments: the signature was made before it became one."""
    return {name: inner for name, inner in whole.items() if name != "attachments"}


def _json(part: bytes, loc: Place, what: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(_bytes(part))
    except (ValueError, RecursionError) as error:
        raise Wrong(loc, f"{what} is not base64url of JSON") from error
    if not isinstance(found, dict):
        raise Wrong(loc, f"{what} must be an object")
    return found


def _bytes(part: bytes) -> bytes:
    return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))


def _check_key(
    header: dict[str, Any], parts: list[bytes], algorithm: hashes.HashAlgorithm, loc: Place
) -> None:
    """Where a certificate came along, the signature must be made with its key."""
    chain = header.get("x5c")
    if chain is None:
        return
    try:
        certificate = x509.load_der_x509_certificate(base64.b64decode(chain[0], validate=True))
        key = certificate.public_key()
    except (ValueError, TypeError, LookupError, binascii.Error) as error:
        raise Wrong(loc, "x5c of the JWS must hold a certificate") from error
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size > KEY_BITS_LIMIT:
        raise Wrong(loc, f"the certificate needs an RSA key of at most {KEY_BITS_LIMIT:,} bits")
    try:
        key.verify(_bytes(parts[2]), parts[0] + b"." + parts[1], padding.PKCS1v15(), algorithm)
    except (InvalidSignature, ValueError) as error:
        raise Wrong(loc, "the signature was not made with the key of its certificate") from error
