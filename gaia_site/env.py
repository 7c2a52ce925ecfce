"""Every setting that comes from outside, declared once: name, type, default, what is allowed, what it is for.

`load()` reads, in this order: the process's environment, `.env` beside manage.py, the files a running
`manage.py up` leaves in its data folder (`run.json`, `secrets.json`), the default. A wrong value raises
`WrongSetting`, which names the variable, the value and what is allowed. Nothing of ours is imported here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from environs import Env

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class WrongSetting(Exception):
    """A variable is missing or has a value that is not allowed. The message is for the operator."""


class Demo(StrEnum):
    """How much of the demonstration `up` brings: data and load, data alone, nothing."""

    ON = "1"
    QUIET = "quiet"
    OFF = "0"


class DiscoveryType(StrEnum):
    """How a node finds its peers: a list in CLUSTER_DISCOVERY_NODES, or the addresses of a DNS name."""

    STATIC = "static"
    DNS = "dns"


class LogFormat(StrEnum):
    """One JSON object a line for machines, or aligned text for people."""

    JSON = "json"
    CONSOLE = "console"


@dataclass(frozen=True, slots=True)
class Kind:
    """How the text of a variable becomes a value, and what is allowed in words.

    `parse` raises ValueError where the text is not allowed.
    """

    parse: Callable[[str], Any]
    allowed: str


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable: `default` is text like the variable's own, None = must be asked for with `require`."""

    name: str
    kind: Kind
    default: str | None
    purpose: str
    secret: bool = False


def _one_of(values: type[StrEnum]) -> Kind:
    return Kind(values, " or ".join(repr(str(value)) for value in values))


def _boolean(text: str) -> bool:
    words = {
        "true": True,
        "1": True,
        "yes": True,
        "on": True,
        "false": False,
        "0": False,
        "no": False,
        "off": False,
    }
    if text.lower() not in words:
        raise ValueError(text)
    return words[text.lower()]


def _whole_number(least: int, most: int) -> Kind:
    def parse(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise ValueError(text)
        return value

    return Kind(parse, f"a whole number from {least} to {most}")


_MILLISECONDS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def _duration(least: str, most: str) -> Kind:
    """A duration with its unit, as a whole number of milliseconds."""

    def in_ms(text: str) -> int:
        match = re.fullmatch(r"(\d{1,9})(ms|s|m|h|d)", text)
        if match is None:
            raise ValueError(text)
        return int(match[1]) * _MILLISECONDS[match[2]]

    def parse(text: str) -> int:
        value = in_ms(text)
        if not in_ms(least) <= value <= in_ms(most):
            raise ValueError(text)
        return value

    return Kind(parse, f"a duration from {least} to {most} with its unit (150ms, 30s, 10m, 2h, 7d)")


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 65_536) or re.search(r"[\s/=,]", host):
        raise ValueError(text)
    return text


def _peers(text: str) -> tuple[str, ...]:
    entries = _words(text)
    for entry in entries:
        node_id, equals, address = entry.rpartition("=")
        if equals and not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", node_id):
            raise ValueError(text)
        _address(address)
    return entries


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _http_urls(text: str) -> tuple[str, ...]:
    urls = _words(text)
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise ValueError(text)
    return tuple(url.rstrip("/") for url in urls)


def _url_with_scheme(*schemes: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        scheme, separator, rest = text.partition("://")
        if scheme not in schemes or not separator or not rest or "\0" in text:
            raise ValueError(text)
        return text

    return parse


def _matching(pattern: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise ValueError(text)
        return text

    return parse


BOOLEAN = Kind(_boolean, "true or false")
ADDRESS = Kind(_address, "HOST:PORT")
WORDS = Kind(_words, "words separated by commas")
SECRET = Kind(_matching(r"[^\s]{32,}"), "at least 32 characters without a space")
DATABASE = Kind(_url_with_scheme("postgresql", "postgres"), "postgresql://USER:PASSWORD@HOST:PORT/NAME")
BROKER = Kind(
    _url_with_scheme("redis", "rediss", "unix"), "redis://HOST:PORT/0, rediss://… or unix:///SOCKET?db=0"
)


def _variable(name: str, kind: Kind, default: str | None, purpose: str, *, secret: bool = False) -> Any:
    """A field of `Environment`; like dataclasses.field() it is typed as whatever the field is."""
    return field(metadata={"variable": Variable(name, kind, default, purpose, secret)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The settings of one process, checked. Durations are whole milliseconds (`_ms`)."""

    # The site
    secret_key: str | None = _variable(
        "SECRET_KEY", SECRET, None, "Signs cookies and tokens; the same on every web process.", secret=True
    )
    debug: bool = _variable("DEBUG", BOOLEAN, "false", "Django's debug pages. Never in production.")
    allowed_hosts: tuple[str, ...] = _variable(
        "ALLOWED_HOSTS", WORDS, "localhost,127.0.0.1,[::1]", "Host names the site answers to."
    )
    trusted_origins: tuple[str, ...] = _variable(
        "TRUSTED_ORIGINS",
        Kind(_http_urls, "origins such as https://gaia.example, separated by commas"),
        "",
        "Further origins from which a browser may post and open sockets.",
    )
    https_only: bool = _variable(
        "HTTPS_ONLY",
        BOOLEAN,
        "false",
        "Secure cookies and HSTS behind a proxy that ends TLS and sets X-Forwarded-Proto.",
    )
    host: str = _variable(
        "HOST",
        Kind(_matching(r"[A-Za-z0-9.:_-]{1,253}"), "an address or a host name"),
        "127.0.0.1",
        "Where `up` lets web listen.",
    )
    port: int = _variable("PORT", _whole_number(1, 65_535), "8000", "The port of web under `up`.")
    static_hashed: bool = _variable(
        "STATIC_HASHED",
        BOOLEAN,
        "false",
        "Serve what `collectstatic` gathered under hashed names, cached for ever; otherwise straight from the sources.",
    )
    log_level: str = _variable(
        "LOG_LEVEL",
        Kind(_matching("DEBUG|INFO|WARNING|ERROR"), "DEBUG, INFO, WARNING or ERROR"),
        "INFO",
        "The least important log line that is written.",
    )
    log_format: LogFormat = _variable("LOG_FORMAT", _one_of(LogFormat), "json", "How a log line looks.")

    # Servers
    database_url: str | None = _variable(
        "DATABASE_URL",
        DATABASE,
        None,
        "PostgreSQL 15 to 18; without it `up` starts an embedded one.",
        secret=True,
    )
    database_pool_max: int = _variable(
        "DATABASE_POOL_MAX", _whole_number(2, 200), "10", "Most pooled connections of one process."
    )
    redis_url: str | None = _variable(
        "REDIS_URL", BROKER, None, "Redis 6.2 to 8; without it `up` starts an embedded one.", secret=True
    )

    # `up`
    data_dir: Path = _variable(
        "GAIA_DATA_DIR", Kind(Path, "a folder"), ".gaia", "Where `up` keeps all data of the embedded system."
    )
    nodes: int = _variable("NODES", _whole_number(1, 7), "1", "How many Raft nodes `up` runs.")
    web_processes: int = _variable(
        "WEB_PROCESSES", _whole_number(1, 4), "1", "How many web processes `up` runs at the one port."
    )
    demo: Demo = _variable("DEMO", _one_of(Demo), "1", "Demonstration data and load, data alone, or neither.")
    postgres_version: int = _variable(
        "PG", Kind({"16": 16, "18": 18}.__getitem__, "16 or 18"), "18", "Which embedded PostgreSQL is run."
    )

    # The cluster
    cluster_enabled: bool = _variable(
        "CLUSTER_ENABLED",
        BOOLEAN,
        "false",
        "With peers; otherwise a single durable node, everything else the same.",
    )
    cluster_node_id: str = _variable(
        "CLUSTER_NODE_ID",
        Kind(_matching(r"[A-Za-z0-9._-]{1,64}"), "1 to 64 of A-Z a-z 0-9 . _ -"),
        "node-1",
        "The name of this node, the same for its whole life.",
    )
    cluster_bind_addr: str = _variable(
        "CLUSTER_BIND_ADDR", ADDRESS, "127.0.0.1:7400", "Where this node listens for its peers."
    )
    cluster_advertise_addr: str = _variable(
        "CLUSTER_ADVERTISE_ADDR",
        ADDRESS,
        None,
        "The address peers reach this node at; CLUSTER_BIND_ADDR where unset.",
    )
    cluster_http_addr: str = _variable(
        "CLUSTER_HTTP_ADDR",
        ADDRESS,
        "127.0.0.1:7500",
        "Where this node takes commands from web, on a private network.",
    )
    cluster_node_urls: tuple[str, ...] = _variable(
        "CLUSTER_NODE_URLS",
        Kind(_http_urls, "http://HOST:PORT of each node, separated by commas"),
        None,
        "Where web reaches the nodes; http://CLUSTER_HTTP_ADDR where unset.",
    )
    cluster_data_dir: Path = _variable(
        "CLUSTER_DATA_DIR",
        Kind(Path, "a folder"),
        None,
        "This node's journal and snapshots; GAIA_DATA_DIR/nodes/ID where unset.",
    )
    cluster_discovery_type: DiscoveryType = _variable(
        "CLUSTER_DISCOVERY_TYPE", _one_of(DiscoveryType), "static", "How peers are found."
    )
    cluster_discovery_nodes: tuple[str, ...] = _variable(
        "CLUSTER_DISCOVERY_NODES",
        Kind(_peers, "[ID=]HOST:PORT of each member, separated by commas"),
        "",
        "The members (static), or the name and port whose addresses are the members (dns).",
    )
    cluster_bootstrap: bool = _variable(
        "CLUSTER_BOOTSTRAP",
        BOOLEAN,
        "true",
        "Whether this node, with an empty data folder, may begin a new cluster.",
    )
    cluster_secret: str | None = _variable(
        "CLUSTER_SECRET", SECRET, None, "Authenticates nodes to one another and web to nodes.", secret=True
    )
    raft_heartbeat_timeout_ms: int = _variable(
        "RAFT_HEARTBEAT_TIMEOUT", _duration("10ms", "10s"), "150ms", "A leader is heard at least this often."
    )
    raft_election_timeout_ms: int = _variable(
        "RAFT_ELECTION_TIMEOUT",
        _duration("50ms", "60s"),
        "300ms",
        "Silence after which a follower stands for election.",
    )
    raft_snapshot_interval_ms: int = _variable(
        "RAFT_SNAPSHOT_INTERVAL",
        _duration("1s", "1d"),
        "120s",
        "How often a node with new entries takes a snapshot.",
    )
    raft_snapshot_retain: int = _variable(
        "RAFT_SNAPSHOT_RETAIN", _whole_number(1, 100), "2", "How many snapshots a node keeps."
    )

    # Sessions and tasks
    session_lease_timeout_ms: int = _variable(
        "SESSION_LEASE_TIMEOUT",
        _duration("1s", "1d"),
        "30s",
        "A session that is silent this long is offline.",
    )
    session_heartbeat_interval_ms: int = _variable(
        "SESSION_HEARTBEAT_INTERVAL",
        _duration("100ms", "1h"),
        "10s",
        "How often a session is asked to be heard.",
    )
    task_max_retries: int = _variable(
        "TASK_MAX_RETRIES", _whole_number(0, 100), "3", "Retries of a task that does not say otherwise."
    )
    task_claim_timeout_ms: int = _variable(
        "TASK_CLAIM_TIMEOUT", _duration("1s", "7d"), "10m", "A claim that is not renewed this long is over."
    )

    # Parts of usability
    usability_metrics_enabled: bool = _variable(
        "USABILITY_METRICS_ENABLED", BOOLEAN, "true", "Take metrics in. Off: the ingest calls do not exist."
    )
    frustration_detection_enabled: bool = _variable(
        "FRUSTRATION_DETECTION_ENABLED",
        BOOLEAN,
        "true",
        "Run the detectors. Off: metrics are stored and nothing more.",
    )
    teacher_dashboard_enabled: bool = _variable(
        "TEACHER_DASHBOARD_ENABLED", BOOLEAN, "true", "Serve the teachers' pages and sockets."
    )
    xapi_lrs_enabled: bool = _variable(
        "XAPI_LRS_ENABLED",
        BOOLEAN,
        "true",
        "Keep xAPI statements and serve them at /xapi/. Off: they become metrics and nothing of them is kept.",
    )
    xapi_kept_ms: int = _variable(
        "XAPI_KEPT",
        _duration("1d", "3650d"),
        "365d",
        "How long xAPI statements, documents and attachments are kept.",
    )

    @property
    def cluster_address(self) -> str:
        """The address this node is known by to its peers."""
        return self.cluster_advertise_addr

    def require(self, *names: str) -> None:
        """Raise WrongSetting for the first of the named variables that is not set: call it where a server starts."""
        for declared in fields(self):
            variable = declared.metadata["variable"]
            if variable.name in names and getattr(self, declared.name) is None:
                message = f"{variable.name} is not set. {variable.purpose} Allowed: {variable.kind.allowed}."
                raise WrongSetting(message)


def variables() -> tuple[Variable, ...]:
    """Every declared variable, in the order of declaration: the source of the table in the documentation."""
    return tuple(declared.metadata["variable"] for declared in fields(Environment))


def load(folder: Path, *, after_up: bool = True) -> Environment:
    """The settings of this process; `folder` is where manage.py lies and relative paths begin.

    `after_up=False` leaves out what an `up` wrote down: for `up` itself, which an earlier one's addresses would
    mislead. Raises WrongSetting.
    """
    reader = Env()
    reader.read_env(folder / ".env", recurse=False)
    data_dir = folder / (reader.str("GAIA_DATA_DIR", "") or ".gaia")
    left_by_up = _left_by_up(data_dir) if after_up else {}
    values: dict[str, Any] = {}
    for declared in fields(Environment):
        variable = declared.metadata["variable"]
        text = reader.str(variable.name, "") or left_by_up.get(variable.name) or variable.default
        values[declared.name] = None if text is None else _parsed(variable, text)
    return _completed(Environment(**values), folder)


def _parsed(variable: Variable, text: str) -> Any:
    try:
        return variable.kind.parse(text)
    except (ValueError, KeyError) as error:
        shown = f"a secret of {len(text)} characters" if variable.secret else repr(text)
        message = f"{variable.name} is {shown}. Allowed: {variable.kind.allowed}."
        raise WrongSetting(message) from error


def _completed(environment: Environment, folder: Path) -> Environment:
    """The same settings, with the defaults that depend on other settings, and rules between two of them checked."""
    data_dir = folder / environment.data_dir
    cluster_data_dir = environment.cluster_data_dir or data_dir / "nodes" / environment.cluster_node_id
    if environment.raft_election_timeout_ms < 2 * environment.raft_heartbeat_timeout_ms:
        message = (
            f"RAFT_ELECTION_TIMEOUT is {environment.raft_election_timeout_ms}ms. Allowed: at least twice "
            f"RAFT_HEARTBEAT_TIMEOUT ({environment.raft_heartbeat_timeout_ms}ms)."
        )
        raise WrongSetting(message)
    if environment.session_lease_timeout_ms < 2 * environment.session_heartbeat_interval_ms:
        message = (
            f"SESSION_LEASE_TIMEOUT is {environment.session_lease_timeout_ms}ms. Allowed: at least twice "
            f"SESSION_HEARTBEAT_INTERVAL ({environment.session_heartbeat_interval_ms}ms)."
        )
        raise WrongSetting(message)
    return replace(
        environment,
        data_dir=data_dir,
        cluster_data_dir=folder / cluster_data_dir,
        cluster_advertise_addr=environment.cluster_advertise_addr or environment.cluster_bind_addr,
        cluster_node_urls=environment.cluster_node_urls or (f"http://{environment.cluster_http_addr}",),
    )


def _left_by_up(data_dir: Path) -> Mapping[str, str]:
    """What a running `up` wrote down for other processes of this checkout; empty where there is none."""
    secrets, run = _json_object(data_dir / "secrets.json"), _json_object(data_dir / "run.json")
    found = {
        "SECRET_KEY": secrets.get("secret_key"),
        "CLUSTER_SECRET": secrets.get("cluster_secret"),
        "DATABASE_URL": run.get("database_url"),
        "REDIS_URL": run.get("redis_url"),
        "CLUSTER_NODE_URLS": ",".join(run.get("node_urls", ())),
    }
    return {name: text for name, text in found.items() if text}


def _json_object(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}
    try:
        found = json.loads(content)
    except ValueError as error:
        message = f"{path} does not hold JSON ({error}). Remove it and start `manage.py up` again."
        raise WrongSetting(message) from error
    return found if isinstance(found, dict) else {}
