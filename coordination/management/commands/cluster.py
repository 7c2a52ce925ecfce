"""`manage.py cluster …`: operating the consensus from a terminal. `--json` prints one JSON object a line."""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import Error as DatabaseError

from coordination.errors import CoordinationError
from coordination.log.client import node_client
from coordination.node.archive import BackupDamaged, NotEmpty, as_json, inspected, packed, restore
from coordination.services import (
    add_member,
    cluster_status,
    remove_member,
    take_snapshot,
    transfer_leadership,
)


class Command(BaseCommand):
    """One subcommand a task; each prints what it found or did, or fails with the reason."""

    help = "Look at the coordination cluster and operate it."
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the subcommands."""
        json_flag = argparse.ArgumentParser(add_help=False)
        json_flag.add_argument("--json", action="store_true", help="print JSON, one object a line")
        parts = parser.add_subparsers(dest="part", required=True)
        parts.add_parser("status", parents=[json_flag], help="what the leader believes")
        parts.add_parser("members", parents=[json_flag], help="each member, its role and lag")
        add = parts.add_parser("add", parents=[json_flag], help="take a member in; it learns before it votes")
        add.add_argument("node_id")
        add.add_argument("address", help="HOST:PORT at which it listens for the other members")
        remove = parts.add_parser("remove", parents=[json_flag], help="send a member away")
        remove.add_argument("node_id")
        parts.add_parser("snapshot", parents=[json_flag], help="every node takes a snapshot now")
        transfer = parts.add_parser("transfer", parents=[json_flag], help="hand leadership to a member")
        transfer.add_argument("node_id")
        backup = parts.add_parser("backup", parents=[json_flag], help="write the whole state to a file")
        backup.add_argument("file", type=Path)
        back = parts.add_parser(
            "restore", parents=[json_flag], help="fill this node's empty data directory from a backup"
        )
        back.add_argument("file", type=Path)
        inspect = parts.add_parser("inspect-journal", parents=[json_flag], help="list a journal's records")
        inspect.add_argument("data_dir", type=Path, nargs="?")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it."""
        parts: dict[str, Callable[[dict[str, Any]], Iterable[dict[str, Any]]]] = {
            "status": _status,
            "members": _members,
            "add": _add,
            "remove": _remove,
            "snapshot": _snapshot,
            "transfer": _transfer,
            "backup": _backup,
            "restore": _restore,
            "inspect-journal": _inspect,
        }
        try:
            for found in parts[options["part"]](options):
                self.stdout.write(as_json(found) if options["json"] else _as_text(found))
        except (CoordinationError, BackupDamaged, NotEmpty, OSError, DatabaseError) as error:
            raise CommandError(str(error)) from error


def _as_text(found: dict[str, Any]) -> str:
    """One line, without what has lines of its own: the members of a status."""
    return "  ".join(f"{name}={value}" for name, value in found.items() if name != "members")


def _status(options: dict[str, Any]) -> list[dict[str, Any]]:
    return [asdict(cluster_status())]


def _members(options: dict[str, Any]) -> list[dict[str, Any]]:
    return [asdict(member) for member in cluster_status().members]


def _add(options: dict[str, Any]) -> list[dict[str, Any]]:
    return [asdict(member) for member in add_member(options["node_id"], options["address"]).members]


def _remove(options: dict[str, Any]) -> list[dict[str, Any]]:
    return [asdict(member) for member in remove_member(options["node_id"]).members]


def _snapshot(options: dict[str, Any]) -> list[dict[str, Any]]:
    return take_snapshot()


def _transfer(options: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"leader": transfer_leadership(options["node_id"])}]


def _backup(options: dict[str, Any]) -> list[dict[str, Any]]:
    content = packed(node_client().state())
    path: Path = options["file"]
    with path.open("xb") as file:
        file.write(content)
    return [{"file": str(path), "size_bytes": len(content)}]


def _restore(options: dict[str, Any]) -> list[dict[str, Any]]:
    data_dir = settings.GAIA.cluster_data_dir
    restored = restore(options["file"].read_bytes(), data_dir, settings.GAIA.cluster_node_id)
    return [
        {
            "data_dir": str(data_dir),
            "revision": restored.revision,
            "sessions": len(restored.sessions),
            "tasks": len(restored.tasks),
            "locks": len(restored.locks),
        }
    ]


def _inspect(options: dict[str, Any]) -> Iterable[dict[str, Any]]:
    data_dir: Path = options["data_dir"] or settings.GAIA.cluster_data_dir
    if not data_dir.is_dir():
        raise CommandError(f"there is no folder {data_dir}")
    return (asdict(line) for line in inspected(data_dir))
