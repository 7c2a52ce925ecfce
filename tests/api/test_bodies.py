"""Bodies: what is refused before anything looks at its meaning."""

import contextlib
import gzip
import zlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gaia_site.bodies import DEPTH_LIMIT, LIMIT_BYTES, check_declared_size, decode_json, inflate
from gaia_site.problems import Problem

NUL = "\\" + "u0000"
SURROGATE = "\\" + "ud800"


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b'{"a":}', "JSON"),
        (b"NaN", "JSON"),
        (b'{"a": Infinity}', "JSON"),
        (b"[-Infinity]", "JSON"),
        (b"1e400", "JSON"),
        (b"9" * 5000, "JSON"),
        (f'"{SURROGATE}"'.encode(), "JSON"),
        (b'"\xed\xa0\x80"', "JSON"),
        (b'"\xff"', "JSON"),
        (b'"\x00"', "JSON"),
        (f'{{"a": ["x{NUL}"]}}'.encode(), "NUL"),
        (f'{{"a{NUL}": 1}}'.encode(), "NUL"),
        (b"[" * 100_000 + b"]" * 100_000, "deeper"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "deeper"),
        (b"[" * (DEPTH_LIMIT + 1) + b"]" * (DEPTH_LIMIT + 1), "deeper"),
        (b"[1] trailing", "JSON"),
    ],
)
def test_it_refuses_json_that_a_later_reader_would_choke_on(raw, says):
    with pytest.raises(Problem) as caught:
        decode_json(raw)

    assert caught.value.slug == "validation-error"
    assert caught.value.errors[0].loc[0] == "body"
    assert says in caught.value.errors[0].msg


def test_a_nul_is_named_by_its_place():
    with pytest.raises(Problem) as caught:
        decode_json(f'{{"a": [1, {{"b": "{NUL}"}}]}}'.encode())

    assert caught.value.errors[0].loc == ("body", "a", 1, "b")


def test_an_escaped_backslash_before_u0000_is_text():
    assert decode_json(b'{"a": "\\\\u0000"}') == {"a": "\\u0000"}


def test_json_at_the_depth_limit_is_accepted():
    value = decode_json(b"[" * DEPTH_LIMIT + b"]" * DEPTH_LIMIT)

    assert isinstance(value, list)


def test_of_two_equal_keys_the_last_counts():
    assert decode_json(b'{"a": 1, "a": 2}') == {"a": 2}


def test_gzip_is_inflated():
    assert inflate(gzip.compress(b"[1]"), "gzip") == b"[1]"


def test_a_gzip_bomb_is_refused_before_it_is_held():
    bomb = gzip.compress(b"0" * (50 * 1024 * 1024))

    with pytest.raises(Problem) as caught:
        inflate(bomb, "gzip")

    assert caught.value.slug == "payload-too-large"


def test_a_body_of_exactly_the_limit_is_accepted():
    assert len(inflate(gzip.compress(b"0" * LIMIT_BYTES), "gzip")) == LIMIT_BYTES


@pytest.mark.parametrize(
    "raw",
    [
        b"not gzip",
        gzip.compress(b"[1]", mtime=0)[:-4],
        gzip.compress(b"[1]", mtime=0) + b"more",
        zlib.compress(b"[1]"),
        b"",
    ],
)
def test_damaged_gzip_is_a_validation_error(raw):
    with pytest.raises(Problem) as caught:
        inflate(raw, "gzip")

    assert caught.value.slug == "validation-error"


def test_an_unknown_encoding_is_named():
    with pytest.raises(Problem) as caught:
        inflate(b"", "br")

    assert caught.value.slug == "unsupported-media-type"


@pytest.mark.parametrize("length", ["-1", "many", "1e3", "٣"])
def test_a_content_length_that_is_no_number_is_refused(length):
    with pytest.raises(Problem) as caught:
        check_declared_size(length)

    assert caught.value.slug == "validation-error"


def test_a_declared_size_beyond_the_limit_is_refused_before_reading():
    with pytest.raises(Problem) as caught:
        check_declared_size(str(LIMIT_BYTES + 1))

    assert caught.value.slug == "payload-too-large"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), inner, max_size=4
        )
    ),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_ordinary_json_passes_unchanged(value):
    assert decode_json(msgspec.json.encode(value)) == value


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused_as_a_problem(raw):
    with contextlib.suppress(Problem):
        decode_json(raw)
