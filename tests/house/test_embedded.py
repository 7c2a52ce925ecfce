"""The embedded servers: in awkward folders, as every kind of account, after every kind of end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis as redis_client

from gaia_site.embedded import account as accounts
from gaia_site.embedded import processes
from gaia_site.embedded.account import EmbeddedServerError, choose_account, socket_folder, wheel_binaries
from gaia_site.embedded.servers import Servers, servers_in

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"shared_buffers": "16MB"}
is_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with an awkward name that everybody may pass."""
    made = Path(tempfile.mkdtemp(prefix="ga ia's-", dir="/tmp"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def started(folder: Path) -> Iterator[Callable[[], Servers]]:
    """Starts servers in `folder`, and stops them at the end."""
    running: list[Servers] = []

    def start() -> Servers:
        servers = servers_in(folder, overrides=SMALL)
        running.append(servers)
        servers.start()
        return servers

    yield start
    for servers in running:
        servers.stop()


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.02)


def remember(servers: Servers, word: str) -> None:
    with psycopg.connect(servers.postgres.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS words (word text)")
        connection.execute("INSERT INTO words VALUES (%s)", [word])
    redis_client.from_url(servers.redis.url).rpush("words", word)


def remembered(servers: Servers) -> tuple[list[str], list[str]]:
    with psycopg.connect(servers.postgres.url) as connection:
        rows = [row[0] for row in connection.execute("SELECT word FROM words").fetchall()]
    words = redis_client.from_url(servers.redis.url).lrange("words", 0, -1)
    return rows, [word.decode() for word in words]


def test_they_start_in_a_folder_with_spaces_and_quotes_and_keep_their_data(
    started: Callable[[], Servers],
) -> None:
    first = started()
    remember(first, "Ä")
    first.stop()

    second = started()

    assert remembered(second) == (["Ä"], ["Ä"])


def test_what_makes_a_commit_durable_is_on(started: Callable[[], Servers]) -> None:
    servers = started()

    with psycopg.connect(servers.postgres.url) as connection:
        found = [
            connection.execute(f"SHOW {name}").fetchone()
            for name in (
                "fsync",
                "full_page_writes",
                "synchronous_commit",
                "data_checksums",
                "listen_addresses",
            )
        ]
    broker = redis_client.from_url(servers.redis.url)

    assert found == [("on",), ("on",), ("on",), ("on",), ("",)]
    assert broker.config_get("appendonly")["appendonly"] == "yes"
    assert broker.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"


def test_only_their_account_can_enter_the_sockets_folder(started: Callable[[], Servers]) -> None:
    found = started().postgres.sockets.stat()

    assert oct(found.st_mode & 0o777) == "0o700"


def start_elsewhere(folder: Path) -> subprocess.Popen[str]:
    """Another process that starts servers in `folder` and then waits; its first line of output lists their pids."""
    program = """
        import sys, time
        from pathlib import Path
        from gaia_site.embedded.servers import servers_in
        servers = servers_in(Path(sys.argv[1]), overrides={"shared_buffers": "16MB"})
        servers.start()
        print(*servers.pids, flush=True)
        time.sleep(600)
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_they_end_when_their_parent_is_killed_and_the_next_start_finds_the_data(
    folder: Path, started: Callable[[], Servers]
) -> None:
    with start_elsewhere(folder) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        remember(servers_in(folder), "before")
        parent.kill()
    wait_for(lambda: not any(map(processes.is_alive, pids)), "the servers to end")

    assert remembered(started()) == (["before"], ["before"])


def test_data_survives_kill_9_of_both_servers(folder: Path, started: Callable[[], Servers]) -> None:
    with start_elsewhere(folder) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        remember(servers_in(folder), "before")
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        parent.kill()
    wait_for(lambda: not any(map(processes.is_alive, pids)), "the servers to end")
    servers_in(folder).postgres.end_orphan()

    assert remembered(started()) == (["before"], ["before"])


def test_an_orphan_is_ended_before_a_new_start(folder: Path, started: Callable[[], Servers]) -> None:
    left_behind = started()
    pids = left_behind.pids
    again = servers_in(folder)

    ended = {again.postgres.end_orphan(), again.redis.end_orphan()}

    assert ended == set(pids)
    left_behind.stop()
    assert remembered_nothing_is_lost(started())


def remembered_nothing_is_lost(servers: Servers) -> bool:
    return servers.postgres.answers() and servers.redis.answers()


@pytest.mark.parametrize("content", ["", "not a number\n", "{stranger}\n{data}\n1\n5432\n\n\n\nready\n"])
def test_a_lock_file_that_nobody_holds_stops_no_start(
    folder: Path, started: Callable[[], Servers], content: str
) -> None:
    started().stop()
    data = servers_in(folder).postgres.data
    text = content.format(stranger=os.getpid(), data=data)  # a living process that is no PostgreSQL
    (data / "postmaster.pid").write_text(text)
    (folder / "redis" / "redis.pid").write_text(f"{os.getpid()}\n")
    again = servers_in(folder)

    assert (again.postgres.end_orphan(), again.redis.end_orphan()) == (None, None)
    started()
    assert processes.is_alive(os.getpid())


def test_data_of_another_major_version_is_refused_with_what_to_do(folder: Path) -> None:
    servers = servers_in(folder)
    servers.postgres.prepare()
    (servers.postgres.data / "PG_VERSION").write_text("15\n")

    with pytest.raises(EmbeddedServerError, match=r"holds data of PostgreSQL 15.*PG=15"):
        servers.postgres.prepare()


def test_an_initdb_that_was_cut_short_is_begun_anew(folder: Path, started: Callable[[], Servers]) -> None:
    (folder / "postgres.unfinished").mkdir()
    (folder / "postgres.unfinished" / "PG_VERSION").write_text("18\n")

    assert started().postgres.answers()


@is_root
def test_root_hands_them_to_a_number_that_has_no_account_where_the_way_is_open(folder: Path) -> None:
    chosen = choose_account(folder, wheel_binaries(18))

    assert chosen.identity.uid == accounts.SERVER_UID
    assert chosen.folder == folder


@is_root
def test_root_enters_a_user_namespace_where_a_folder_on_the_way_is_closed(
    folder: Path, started: Callable[[], Servers]
) -> None:
    if subprocess.run(["unshare", "--user", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine allows no user namespaces")
    inner = folder / "checkout"
    inner.mkdir(mode=0o711)
    folder.chmod(0o700)
    servers = servers_in(inner, overrides=SMALL)

    servers.start()
    try:
        remember(servers, "inside")
        assert servers.postgres.account.identity.prefix[0] == "unshare"
        assert remembered(servers) == (["inside"], ["inside"])
        assert oct(folder.stat().st_mode & 0o777) == "0o700", "rights above our folder were changed"
    finally:
        servers.stop()


@is_root
def test_root_uses_a_folder_elsewhere_where_nothing_else_is_allowed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.chmod(0o700)
    inner = folder / "checkout"
    inner.mkdir()
    monkeypatch.setattr(accounts, "_in_a_namespace", lambda *_: None)
    servers = servers_in(inner, overrides=SMALL)
    there = servers.postgres.account.folder

    try:
        servers.start()
        assert servers.postgres.answers()
        assert there != inner
        assert (inner / "elsewhere").read_text().strip() == str(there)
    finally:
        servers.stop()
        shutil.rmtree(there)


@is_root
def test_root_without_any_way_gets_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for way in ("_as_plain_number", "_in_a_namespace", "_elsewhere"):
        monkeypatch.setattr(accounts, way, lambda *_: None)

    with pytest.raises(EmbeddedServerError, match=r"refuses to run as root.*DATABASE_URL"):
        choose_account(folder, wheel_binaries(18))


@pytest.fixture
def deep(folder: Path) -> Path:
    """A folder whose path is too long for a Unix socket inside it."""
    made = folder / ("d" * 60) / ("e" * 40)
    made.mkdir(parents=True)
    for parent in (made, made.parent):
        parent.chmod(0o711)
    return made


def test_a_path_too_long_for_a_socket_puts_the_sockets_elsewhere(deep: Path) -> None:
    servers = servers_in(deep, overrides=SMALL)
    servers.start()
    try:
        remember(servers, "deep")
        assert servers.postgres.sockets.parent == Path("/tmp")
        assert remembered(servers) == (["deep"], ["deep"])
    finally:
        servers.stop()
        shutil.rmtree(servers.postgres.sockets)


def test_somebody_elses_folder_is_not_used_for_sockets(deep: Path) -> None:
    chosen = choose_account(deep, wheel_binaries(18))
    sockets = socket_folder(chosen)
    try:
        sockets.chmod(0o755)
        with pytest.raises(EmbeddedServerError, match="not a private folder of ours"):
            socket_folder(chosen)
    finally:
        sockets.rmdir()


def test_the_other_postgres_runs_too(folder: Path) -> None:
    servers = servers_in(folder, postgres_version=16, overrides=SMALL)
    servers.start()
    try:
        with psycopg.connect(servers.postgres.url) as connection:
            assert connection.execute(
                "SELECT current_setting('server_version_num')::int / 10000"
            ).fetchone() == (16,)
    finally:
        servers.stop()


def test_a_start_time_tells_a_reused_number_from_ours() -> None:
    began = processes.started_at(os.getpid())

    assert began is not None
    assert abs(time.time() - began) < 24 * 3600
    assert processes.started_at(2**22 + 1) is None
