"""Real servers for the tests: one embedded PostgreSQL and one Redis a run, on Unix sockets in a folder of their own.

They start here, before Django reads its settings, and only in the process that was called: workers of
pytest-xdist find the addresses in their environment. A DATABASE_URL or REDIS_URL given from outside is used
instead. `PG=16` runs the tests on the other PostgreSQL.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import django
import pytest

from gaia_site.embedded.servers import Servers, servers_in

_FOR_TESTS = {
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "shared_buffers": "128MB",
    "max_connections": "120",  # several xdist workers, each with a pool and crash tests' processes
}
_SETTINGS = {
    "DJANGO_SETTINGS_MODULE": "gaia_site.settings",
    "SECRET_KEY": "a-key-for-tests-alone-0123456789abcdef",
    "CLUSTER_SECRET": "a-cluster-secret-for-tests-0123456789ab",
}


def _provide_servers() -> tuple[Servers, Path] | None:
    """Start what the environment does not name; the servers and the folder that have to go afterwards."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    if os.environ.get("DATABASE_URL") and os.environ.get("REDIS_URL"):
        return None
    folder = Path(tempfile.mkdtemp(prefix="gaia-", dir="/tmp"))
    folder.chmod(0o711)  # the servers may run under another account
    servers = servers_in(folder, postgres_version=int(os.environ.get("PG") or 18), overrides=_FOR_TESTS)
    servers.start()
    os.environ.setdefault("DATABASE_URL", servers.postgres.url)
    os.environ.setdefault("REDIS_URL", servers.redis.url)
    os.environ["GAIA_DATA_DIR"] = str(folder / "data")
    return servers, folder


# While this file is imported: pytest reads the conftest.py of every folder named on its command line before it
# calls pytest_configure, and those import models.
_provided = _provide_servers()
django.setup()


ONE_WORKER_EACH = {"agent", "api", "browser", "coordination", "ingest", "usability"}


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Folders whose tests share a running system go to one worker each: a second system would only slow both.

    Those of ingest read the one Redis stream from its end on, where another's rows would be in the way.
    """
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in ONE_WORKER_EACH:
            item.add_marker(pytest.mark.xdist_group(folder))


def pytest_unconfigure() -> None:
    """Stop the servers and remove their folder."""
    if _provided is not None:
        servers, folder = _provided
        servers.stop()
        shutil.rmtree(folder, ignore_errors=True)
