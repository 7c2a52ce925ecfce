"""Keys: issued once, judged by hash, scope and time."""

from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.utils import timezone

from gaia_site import keys
from gaia_site.keys import forget_keys, issue_key, issue_session_token, principal_of, revoke_key
from gaia_site.models import ApiKey
from gaia_site.problems import Problem

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _fresh_memory():
    forget_keys()
    yield
    forget_keys()


@pytest.fixture
def owner():
    return get_user_model().objects.create_user("rosa")


def refused(secret):
    with pytest.raises(Problem) as caught:
        principal_of(secret)
    assert caught.value.slug == "not-authenticated"
    return caught.value.detail


def test_a_key_names_its_owner_scopes_and_app(owner):
    _, secret = issue_key(name="maths", owner=owner, scopes=["metrics:write"], app_name="maths")

    principal = principal_of(secret)

    assert principal.user == owner
    assert principal.scopes == {"metrics:write"}
    assert principal.app_name == "maths"
    assert principal.actor == "key:maths"


def test_no_stored_byte_holds_the_secret(owner):
    key, secret = issue_key(name="k", owner=owner, scopes=["agent"])

    row = ApiKey.objects.values().get(pk=key.pk)

    assert secret.split("_", 2)[2] not in str(row)
    assert len(row["digest"]) == 32


def test_a_wrong_secret_behind_a_known_prefix_is_refused(owner):
    _, secret = issue_key(name="k", owner=owner, scopes=["agent"])

    refused(secret[:-1] + ("A" if secret[-1] != "A" else "B"))


@pytest.mark.parametrize(
    "secret",
    ["", "x", "gaia_", "gaia_abc_def", "gaia_0123456789ab_", "gaia_0123456789ab_" + "x" * 3000, "töken"],
)
def test_what_is_no_key_is_refused(secret):
    refused(secret)


def test_a_revoked_key_is_refused_within_a_second(owner, monkeypatch):
    key, secret = issue_key(name="k", owner=owner, scopes=["agent"])
    principal_of(secret)
    clock = keys.time.monotonic()
    ApiKey.objects.filter(pk=key.pk).update(revoked_at=timezone.now())  # by another process

    monkeypatch.setattr(keys.time, "monotonic", lambda: clock + 1.0)

    refused(secret)


def test_revoking_counts_at_once_in_the_same_process(owner):
    key, secret = issue_key(name="k", owner=owner, scopes=["agent"])
    principal_of(secret)

    revoke_key(key)

    refused(secret)


def test_an_expired_key_is_refused_though_it_is_remembered(owner):
    key, secret = issue_key(
        name="k", owner=owner, scopes=["agent"], expires_at=timezone.now() + timedelta(milliseconds=50)
    )
    principal_of(secret)
    while key.is_usable():
        pass

    refused(secret)


def test_the_key_of_a_disabled_person_is_refused(owner):
    _, secret = issue_key(name="k", owner=owner, scopes=["agent"])
    owner.is_active = False
    owner.save()

    refused(secret)


def test_admin_includes_agent_and_reading_but_not_writing_metrics(owner):
    _, secret = issue_key(name="k", owner=owner, scopes=["admin"])

    principal = principal_of(secret)

    assert principal.has_any("agent")
    assert principal.has_any("metrics:read")
    assert not principal.has_any("metrics:write")


def test_use_is_noted_once_a_minute(owner, django_assert_num_queries):
    key, secret = issue_key(name="k", owner=owner, scopes=["agent"])
    principal_of(secret)
    key.refresh_from_db()
    first = key.last_used_at
    forget_keys()

    with django_assert_num_queries(1):
        principal_of(secret)

    key.refresh_from_db()
    assert key.last_used_at == first


def test_a_remembered_key_costs_no_query(owner, django_assert_num_queries):
    _, secret = issue_key(name="k", owner=owner, scopes=["agent"])
    principal_of(secret)

    with django_assert_num_queries(0):
        principal_of(secret)


@pytest.mark.parametrize("scopes", [[], ["root"], ["agent", "everything"]])
def test_unknown_or_no_scopes_are_refused(owner, scopes):
    with pytest.raises(ValidationError):
        issue_key(name="k", owner=owner, scopes=scopes)


def test_a_session_token_is_its_student_in_its_app_only(owner):
    _, secret = issue_key(name="k", owner=owner, scopes=["metrics:write"], app_name="maths")

    token, ends = issue_session_token(principal_of(secret), student_id="s1", app_name="maths", ttl_s=60)
    principal = principal_of(token)

    assert principal.kind == "student"
    assert (principal.student_id, principal.app_name) == ("s1", "maths")
    assert principal.scopes == {"metrics:write"}
    assert 58 <= (ends - timezone.now()).total_seconds() <= 60


def test_a_session_token_ends_with_its_time_and_with_its_key(owner):
    key, secret = issue_key(name="k", owner=owner, scopes=["metrics:write"])
    issuer = principal_of(secret)
    over, _ = issue_session_token(
        issuer, student_id="s1", app_name="maths", ttl_s=60, now=timezone.now() - timedelta(seconds=61)
    )
    token, _ = issue_session_token(issuer, student_id="s1", app_name="maths", ttl_s=60)

    refused(over)
    principal_of(token)
    revoke_key(key)
    refused(token)


def test_a_session_token_cannot_be_changed(owner):
    _, secret = issue_key(name="k", owner=owner, scopes=["metrics:write"])
    token, _ = issue_session_token(principal_of(secret), student_id="s1", app_name="maths", ttl_s=60)
    other, _ = issue_session_token(principal_of(secret), student_id="s2", app_name="maths", ttl_s=60)

    refused(other.rpartition(".")[0] + "." + token.rpartition(".")[2])


def test_the_command_prints_a_key_that_opens(owner, capsys):
    call_command("create_api_key", "--name", "ci", "--owner", "rosa", "--scope", "agent", "metrics:read")

    secret = capsys.readouterr().out.strip()

    assert principal_of(secret).scopes == {"agent", "metrics:read"}


def test_the_command_names_an_owner_it_does_not_know():
    with pytest.raises(CommandError, match="no user 'nobody'"):
        call_command("create_api_key", "--name", "ci", "--owner", "nobody", "--scope", "agent")
