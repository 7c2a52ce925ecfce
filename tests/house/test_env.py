"""Settings from the environment: every variable, its default, and the sentence that refuses a wrong value."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gaia_site import env
from gaia_site.env import WrongSetting, load, variables

SPECIFIED = (
    *(
        "CLUSTER_ENABLED",
        "CLUSTER_NODE_ID",
        "CLUSTER_BIND_ADDR",
        "CLUSTER_ADVERTISE_ADDR",
        "CLUSTER_DATA_DIR",
    ),
    *("CLUSTER_DISCOVERY_TYPE", "CLUSTER_DISCOVERY_NODES", "CLUSTER_BOOTSTRAP", "CLUSTER_SECRET"),
    *("RAFT_HEARTBEAT_TIMEOUT", "RAFT_ELECTION_TIMEOUT", "RAFT_SNAPSHOT_INTERVAL", "RAFT_SNAPSHOT_RETAIN"),
    *("SESSION_LEASE_TIMEOUT", "SESSION_HEARTBEAT_INTERVAL", "TASK_MAX_RETRIES", "TASK_CLAIM_TIMEOUT"),
    *("USABILITY_METRICS_ENABLED", "FRUSTRATION_DETECTION_ENABLED", "TEACHER_DASHBOARD_ENABLED"),
    *("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "ALLOWED_HOSTS"),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty checkout whose environment names nothing of ours."""
    for variable in variables():
        monkeypatch.delenv(variable.name, raising=False)
    return tmp_path


@pytest.mark.parametrize("name", SPECIFIED)
def test_every_specified_variable_is_declared(name: str) -> None:
    assert name in {variable.name for variable in variables()}


def test_every_variable_says_what_it_is_for() -> None:
    names = [variable.name for variable in variables()]

    assert len(names) == len(set(names))
    assert all(variable.purpose.endswith(".") and variable.kind.allowed for variable in variables())


def test_an_empty_environment_gives_the_specified_defaults(folder: Path) -> None:
    found = load(folder)

    assert found.raft_heartbeat_timeout_ms == 150
    assert found.raft_election_timeout_ms == 300
    assert found.raft_snapshot_interval_ms == 120_000
    assert found.raft_snapshot_retain == 2
    assert found.session_lease_timeout_ms == 30_000
    assert found.session_heartbeat_interval_ms == 10_000
    assert found.task_max_retries == 3
    assert found.task_claim_timeout_ms == 600_000
    assert (found.cluster_enabled, found.usability_metrics_enabled, found.debug) == (False, True, False)
    assert (found.database_url, found.redis_url, found.secret_key) == (None, None, None)
    assert found.data_dir == folder / ".gaia"


WRONG = {
    "SECRET_KEY": "short",
    "DEBUG": "maybe",
    "TRUSTED_ORIGINS": "gaia.example",
    "HTTPS_ONLY": "2",
    "HOST": "a host",
    "PORT": "80000",
    "LOG_LEVEL": "LOUD",
    "LOG_FORMAT": "xml",
    "STATIC_HASHED": "perhaps",
    "DATABASE_URL": "mysql://root@localhost/gaia",
    "DATABASE_POOL_MAX": "1",
    "REDIS_URL": "localhost:6379",
    "NODES": "0",
    "WEB_PROCESSES": "5",
    "DEMO": "loud",
    "PG": "9",
    "CLUSTER_ENABLED": "da",
    "CLUSTER_NODE_ID": "node 1",
    "CLUSTER_BIND_ADDR": "127.0.0.1",
    "CLUSTER_ADVERTISE_ADDR": ":7400",
    "CLUSTER_HTTP_ADDR": "127.0.0.1:99999",
    "CLUSTER_NODE_URLS": "ftp://node-1",
    "CLUSTER_DISCOVERY_TYPE": "magic",
    "CLUSTER_DISCOVERY_NODES": "node 1=127.0.0.1:7400",
    "CLUSTER_BOOTSTRAP": "",
    "CLUSTER_SECRET": "with a space in the middle of thirty-two characters",
    "RAFT_HEARTBEAT_TIMEOUT": "150",
    "RAFT_ELECTION_TIMEOUT": "1us",
    "RAFT_SNAPSHOT_INTERVAL": "0s",
    "RAFT_SNAPSHOT_RETAIN": "none",
    "SESSION_LEASE_TIMEOUT": "-30s",
    "SESSION_HEARTBEAT_INTERVAL": "1.5s",
    "TASK_MAX_RETRIES": "-1",
    "TASK_CLAIM_TIMEOUT": "8d",
    "USABILITY_METRICS_ENABLED": "enabled",
    "FRUSTRATION_DETECTION_ENABLED": "y",
    "TEACHER_DASHBOARD_ENABLED": "None",
    "XAPI_LRS_ENABLED": "sometimes",
    "XAPI_KEPT": "for ever",
}
ANYTHING_GOES = {"ALLOWED_HOSTS", "GAIA_DATA_DIR", "CLUSTER_DATA_DIR"}
REFUSED = {name: value for name, value in WRONG.items() if value}


def test_every_variable_that_can_be_wrong_is_tried_with_a_wrong_value() -> None:
    assert set(WRONG) | ANYTHING_GOES == {variable.name for variable in variables()}


@pytest.mark.parametrize(("name", "value"), REFUSED.items(), ids=REFUSED)
def test_a_wrong_value_is_refused_with_name_value_and_what_is_allowed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(WrongSetting) as refusal:
        load(folder)

    declared = next(variable for variable in variables() if variable.name == name)
    assert str(refusal.value).startswith(f"{name} is ")
    assert f"Allowed: {declared.kind.allowed}." in str(refusal.value)
    assert (value in str(refusal.value)) is not declared.secret


def test_an_empty_value_counts_as_not_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER_BOOTSTRAP", "")

    assert load(folder).cluster_bootstrap is True


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("150ms", 150), ("2s", 2_000), ("10m", 600_000), ("1h", 3_600_000), ("7d", 604_800_000)],
)
def test_durations_are_whole_milliseconds(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, milliseconds: int
) -> None:
    if milliseconds >= 1_000:
        monkeypatch.setenv("TASK_CLAIM_TIMEOUT", text)
        assert load(folder).task_claim_timeout_ms == milliseconds
    else:
        monkeypatch.setenv("RAFT_HEARTBEAT_TIMEOUT", text)
        assert load(folder).raft_heartbeat_timeout_ms == milliseconds


@pytest.mark.parametrize("text", ["true", "1", "yes", "on", "TRUE"])
def test_a_switch_is_on_in_every_usual_word(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("CLUSTER_ENABLED", text)

    assert load(folder).cluster_enabled is True


def test_lists_are_separated_by_commas(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER_DISCOVERY_NODES", "node-1=10.0.0.1:7400, node-2=10.0.0.2:7400,")

    assert load(folder).cluster_discovery_nodes == ("node-1=10.0.0.1:7400", "node-2=10.0.0.2:7400")


def test_an_election_must_be_slower_than_two_heartbeats(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAFT_ELECTION_TIMEOUT", "299ms")

    with pytest.raises(WrongSetting, match=r"RAFT_ELECTION_TIMEOUT is 299ms.*RAFT_HEARTBEAT_TIMEOUT"):
        load(folder)


def test_a_lease_must_outlast_two_heartbeats(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSION_LEASE_TIMEOUT", "19s")

    with pytest.raises(WrongSetting, match=r"SESSION_LEASE_TIMEOUT is 19000ms.*SESSION_HEARTBEAT_INTERVAL"):
        load(folder)


def test_defaults_follow_the_settings_they_depend_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER_BIND_ADDR", "10.0.0.7:7400")
    monkeypatch.setenv("CLUSTER_HTTP_ADDR", "10.0.0.7:7500")
    monkeypatch.setenv("CLUSTER_NODE_ID", "seven")

    found = load(folder)

    assert found.cluster_address == "10.0.0.7:7400"
    assert found.cluster_node_urls == ("http://10.0.0.7:7500",)
    assert found.cluster_data_dir == folder / ".gaia" / "nodes" / "seven"


def test_a_file_beside_manage_py_is_read_and_the_environment_wins(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".env").write_text("PORT=8123\nNODES=3\n")
    monkeypatch.setenv("NODES", "5")

    found = load(folder)

    assert (found.port, found.nodes) == (8123, 5)


def leave_a_running_system(folder: Path) -> None:
    (folder / ".gaia").mkdir()
    run = {
        "database_url": "postgresql://gaia@/gaia?host=%2Frun",
        "redis_url": "unix:///r",
        "node_urls": ["http://h:1"],
    }
    (folder / ".gaia" / "run.json").write_text(json.dumps(run))
    secrets = {"secret_key": "s" * 40, "cluster_secret": "c" * 40}
    (folder / ".gaia" / "secrets.json").write_text(json.dumps(secrets))


def test_a_command_beside_a_running_system_reaches_its_servers(folder: Path) -> None:
    leave_a_running_system(folder)

    found = load(folder)

    assert found.database_url == "postgresql://gaia@/gaia?host=%2Frun"
    assert found.redis_url == "unix:///r"
    assert found.cluster_node_urls == ("http://h:1",)
    assert (found.secret_key, found.cluster_secret) == ("s" * 40, "c" * 40)


def test_a_new_start_is_not_misled_by_what_an_earlier_one_wrote_down(folder: Path) -> None:
    leave_a_running_system(folder)

    assert load(folder, after_up=False).database_url is None


def test_a_damaged_run_file_is_named(folder: Path) -> None:
    (folder / ".gaia").mkdir()
    (folder / ".gaia" / "run.json").write_text("{")

    with pytest.raises(WrongSetting, match=r"run\.json does not hold JSON"):
        load(folder)


def test_a_server_that_needs_a_variable_says_which(folder: Path) -> None:
    found = load(folder)

    with pytest.raises(WrongSetting, match="DATABASE_URL is not set"):
        found.require("PORT", "DATABASE_URL")
    found.require("PORT")


def test_no_other_module_reads_the_environment() -> None:
    root = Path(env.__file__).resolve().parents[1]
    own_affairs = {
        "gaia_site/asgi.py",
        "gaia_site/embedded/system.py",
        "gaia_site/embedded/console.py",
        "coordination/verify/cluster.py",  # what its throw-away processes may inherit
        "coordination/verify/prepare.py",
    }
    apart = ("coordination/agent/",)  # one file without dependencies, run on other machines
    reading = {
        str(path.relative_to(root))
        for package in ("gaia_site", "coordination", "usability")
        for path in (root / package).rglob("*.py")
        if "os.environ" in path.read_text() or "os.getenv" in path.read_text()
    }

    found = {path for path in reading - own_affairs if not path.startswith(apart)}
    assert found <= {"gaia_site/env.py", "gaia_site/settings.py"}
