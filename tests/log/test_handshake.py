"""Nobody is heard before both sides have proved that they hold the secret, and nothing sealed can be used twice."""

import struct

import pytest

from coordination.log import handshake
from coordination.log.handshake import FIXED, Handshake, Refused, Session

SECRET = "a secret that all members share"


def shake(dialer: Handshake, acceptor: Handshake) -> list[bytes]:
    """All three frames of a handshake that goes through."""
    hello = dialer.hello()
    answer = acceptor.receive(hello)
    assert answer is not None
    proof = dialer.receive(answer)
    assert proof is not None
    assert acceptor.receive(proof) is None
    return [hello, answer, proof]


def pair(secret: str = SECRET) -> tuple[Session, Session]:
    dialer, acceptor = Handshake(SECRET, "n1", dials="n2"), Handshake(secret, "n2")
    shake(dialer, acceptor)
    assert dialer.session is not None
    assert acceptor.session is not None
    return dialer.session, acceptor.session


def test_both_sides_know_each_other_and_read_each_other() -> None:
    dialer, acceptor = Handshake(SECRET, "n1", dials="n2"), Handshake(SECRET, "n2")

    shake(dialer, acceptor)

    assert (dialer.peer, acceptor.peer) == ("n2", "n1")
    assert acceptor.session.open(dialer.session.seal(b"there")) == b"there"
    assert dialer.session.open(acceptor.session.seal(b"back")) == b"back"


def test_a_dialer_refuses_an_acceptor_with_another_secret() -> None:
    with pytest.raises(Refused) as refused:
        pair("another secret of the same kind")

    assert refused.value.reason == handshake.WRONG_SECRET


def test_an_acceptor_refuses_a_dialer_that_cannot_prove_itself() -> None:
    dialer, acceptor = Handshake(SECRET, "n1", dials="n2"), Handshake(SECRET, "n2")
    acceptor.receive(dialer.hello())

    with pytest.raises(Refused) as refused:
        acceptor.receive(bytes(32))

    assert refused.value.reason == handshake.WRONG_SECRET
    assert acceptor.session is None


def test_a_recorded_handshake_cannot_be_played_again() -> None:
    recorded = shake(Handshake(SECRET, "n1", dials="n2"), Handshake(SECRET, "n2"))
    acceptor = Handshake(SECRET, "n2")
    acceptor.receive(recorded[0])

    with pytest.raises(Refused) as refused:
        acceptor.receive(recorded[2])

    assert refused.value.reason == handshake.WRONG_SECRET


def test_a_hello_sent_back_to_its_sender_is_refused() -> None:
    dialer = Handshake(SECRET, "n1", dials="n2")
    hello = dialer.hello()

    with pytest.raises(Refused):
        dialer.receive(hello + bytes(32))


@pytest.mark.parametrize(("who", "whom"), [("n2", "n2"), ("", "n2"), ("n1", "n3")])
def test_a_call_by_nobody_by_oneself_or_for_somebody_else_is_refused(who: str, whom: str) -> None:
    dialer = Handshake(SECRET, who, dials=whom)

    with pytest.raises(Refused) as refused:
        Handshake(SECRET, "n2").receive(dialer.hello())

    assert refused.value.reason == handshake.NOT_A_PEER


def test_another_protocol_version_is_refused_by_its_number() -> None:
    hello = bytearray(Handshake(SECRET, "n1", dials="n2").hello())
    struct.pack_into("<H", hello, 8, 0)

    with pytest.raises(Refused, match="version 0, this member 2") as refused:
        Handshake(SECRET, "n2").receive(bytes(hello))

    assert refused.value.reason == handshake.WRONG_VERSION


@pytest.mark.parametrize("at", range(0, FIXED.size + 4, 3))
def test_a_changed_hello_never_leads_to_a_session(at: int) -> None:
    dialer, acceptor = Handshake(SECRET, "n1", dials="n2"), Handshake(SECRET, "n2")
    hello = bytearray(dialer.hello())
    hello[at] ^= 1

    with pytest.raises(Refused):
        acceptor.receive(dialer.receive(acceptor.receive(bytes(hello))))


def test_a_sealed_frame_cannot_be_used_twice() -> None:
    sender, receiver = pair()
    frame = sender.seal(b"once")
    receiver.open(frame)

    with pytest.raises(Refused) as refused:
        receiver.open(frame)

    assert refused.value.reason == handshake.BAD_FRAME


def test_a_frame_left_out_is_noticed() -> None:
    sender, receiver = pair()
    sender.seal(b"lost")

    with pytest.raises(Refused):
        receiver.open(sender.seal(b"next"))


def test_a_frame_cannot_be_sent_back_to_its_sender() -> None:
    sender, _ = pair()

    with pytest.raises(Refused):
        sender.open(sender.seal(b"mine"))


def test_sessions_share_no_keys() -> None:
    first, _ = pair()
    _, second = pair()

    with pytest.raises(Refused):
        second.open(first.seal(b"elsewhere"))
