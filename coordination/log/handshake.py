"""How two members prove to each other that they hold CLUSTER_SECRET, and seal what follows. No I/O here.

    dialer   → hello(nonce, ephemeral key, who, whom)
    acceptor → hello(nonce, ephemeral key, who, whom), proof over both hellos
    dialer   → proof over all of it

Proofs are HMACs under a key derived from the secret; session keys come from an X25519 exchange and the secret
(HKDF-SHA256, RFC 5869), one for each direction, with AES-256-GCM and a counter as nonce (RFC 5116). So a recorded
connection can be neither replayed nor read later by someone who learns the secret, and a frame out of order fails.
Hellos are fixed fields; nothing is decoded before both proofs hold.
"""

import hashlib
import hmac
import secrets
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

PROTOCOL_VERSION = 2
"""2: memberships in the log. Version 1 would pass over them, so the two do not talk."""
MAGIC = b"GAIAPEER"
FIXED = struct.Struct("<8sH32s32sBB")
PROOF_BYTES = 32
NONCE = struct.Struct("<4xQ")
TAG_BYTES = 16
MIN_SECRET_CHARACTERS = 16
MAX_HELLO_BYTES = FIXED.size + 2 * 255 + PROOF_BYTES

WRONG_SECRET, WRONG_VERSION, NOT_A_PEER, BAD_FRAME = (
    "wrong_secret",
    "wrong_version",
    "not_a_peer",
    "bad_frame",
)


class Refused(Exception):
    """The other side is not let in. `reason` is one of the constants above and names the counter."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def _derive(secret: bytes, salt: bytes | None, info: bytes, length: int) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=salt, info=info).derive(secret)


class Session:
    """The sealed connection: each direction its own key and its own count of frames."""

    def __init__(self, sending: bytes, receiving: bytes) -> None:
        self._sending, self._receiving = AESGCM(sending), AESGCM(receiving)
        self._sent = self._received = 0

    def seal(self, plain: bytes) -> bytes:
        """The plain bytes as this direction's next frame."""
        sealed = self._sending.encrypt(NONCE.pack(self._sent), plain, None)
        self._sent += 1
        return sealed

    def open(self, sealed: bytes) -> bytes:
        """The plain bytes of the other direction's next frame; raises Refused for any other."""
        try:
            plain = self._receiving.decrypt(NONCE.pack(self._received), sealed, None)
        except InvalidTag as error:
            raise Refused(BAD_FRAME, f"frame {self._received} was changed, repeated or left out") from error
        self._received += 1
        return plain


class Handshake:
    """One side of it. `receive` takes the other's frames and returns what to send; then `session` and `peer` are set.

    A dialer knows whom it wants (`peer`); an acceptor learns who it is. Whoever holds the secret is let in: who is a
    member is a question for the log, which can also tell one that it is none any more.
    """

    def __init__(self, secret: str, node_id: str, dials: str = "") -> None:
        self._secret, self._node_id, self.peer = secret.encode(), node_id, dials
        self._dials = bool(dials)
        self._key = X25519PrivateKey.generate()
        self._transcript = b""
        self._theirs = b""
        self._awaits_proof = False
        self.session: Session | None = None

    def hello(self) -> bytes:
        """A dialer's first frame."""
        self._transcript = self._hello()
        return self._transcript

    def receive(self, frame: bytes) -> bytes | None:
        """Take the other side's next frame; returns what to answer, if anything. Raises Refused."""
        if len(frame) > MAX_HELLO_BYTES:
            raise Refused(BAD_FRAME, f"{len(frame)} bytes are too many for a hello")
        if self._awaits_proof:
            return self._finish_accepting(frame)
        return self._finish_dialing(frame) if self._dials else self._accept(frame)

    def _hello(self) -> bytes:
        me, whom = self._node_id.encode(), self.peer.encode()
        public = self._key.public_key().public_bytes_raw()
        fixed = FIXED.pack(MAGIC, PROTOCOL_VERSION, secrets.token_bytes(32), public, len(me), len(whom))
        return fixed + me + whom

    def _read_hello(self, hello: bytes) -> str:
        """Returns who greets; raises Refused unless it speaks our version, means us and is somebody else."""
        if len(hello) < FIXED.size:
            raise Refused(BAD_FRAME, f"{len(hello)} bytes are too few for a hello")
        magic, version, _, self._theirs, me_bytes, whom_bytes = FIXED.unpack_from(hello)
        if magic != MAGIC:
            raise Refused(BAD_FRAME, "it does not speak this protocol")
        if version != PROTOCOL_VERSION:
            raise Refused(WRONG_VERSION, f"it speaks version {version}, this member {PROTOCOL_VERSION}")
        names = hello[FIXED.size :]
        if len(names) != me_bytes + whom_bytes:
            raise Refused(BAD_FRAME, "the names in the hello have other lengths than it says")
        who, whom = (part.decode("utf-8", "replace") for part in (names[:me_bytes], names[me_bytes:]))
        if whom != self._node_id or who in ("", self._node_id) or (self._dials and who != self.peer):
            raise Refused(NOT_A_PEER, f"{who!r} greets {whom!r}; this is {self._node_id!r}")
        return who

    def _accept(self, hello: bytes) -> bytes:
        self.peer = self._read_hello(hello)
        mine = self._hello()
        proof = self._proof(b"acceptor", hello + mine)
        self._transcript = hello + mine + proof
        self._awaits_proof = True
        return mine + proof

    def _finish_dialing(self, frame: bytes) -> bytes:
        hello, proof = frame[:-PROOF_BYTES], frame[-PROOF_BYTES:]
        self._read_hello(hello)
        self._check(proof, b"acceptor", self._transcript + hello)
        self._transcript += frame
        self.session = self._make_session()
        return self._proof(b"dialer", self._transcript)

    def _finish_accepting(self, proof: bytes) -> None:
        self._check(proof, b"dialer", self._transcript)
        self.session = self._make_session()

    def _proof(self, side: bytes, transcript: bytes) -> bytes:
        key = _derive(self._secret, None, b"gaia peers 1 proof", 32)
        return hmac.digest(key, side + transcript, hashlib.sha256)

    def _check(self, proof: bytes, side: bytes, transcript: bytes) -> None:
        if not hmac.compare_digest(proof, self._proof(side, transcript)):
            raise Refused(WRONG_SECRET, f"{self.peer} does not hold this cluster's CLUSTER_SECRET")

    def _make_session(self) -> Session:
        try:
            shared = self._key.exchange(X25519PublicKey.from_public_bytes(self._theirs))
        except ValueError as error:
            raise Refused(BAD_FRAME, "its ephemeral key is no key") from error
        salt = hashlib.sha256(self._transcript).digest()
        keys = _derive(shared + self._secret, salt, b"gaia peers 1 session", 64)
        dialing, accepting = keys[:32], keys[32:]
        return Session(dialing, accepting) if self._dials else Session(accepting, dialing)
