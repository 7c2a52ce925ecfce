"""`manage.py cluster` against real nodes and their files."""

import json
import os
import subprocess
import sys
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from coordination import services
from coordination.log.client import node_client
from coordination.machine.codec import decode_snapshot
from tests.cluster import ROOT, Cluster
from tests.coordination.fleet import ACTOR, claimed, registered


def said(*arguments: str) -> list[dict]:
    out = StringIO()
    call_command("cluster", *arguments, "--json", stdout=out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.mark.usefixtures("live_node")
def test_status_and_members_are_told():
    (status,) = said("status")

    assert (status["role"], status["healthy"]) == ("leader", True)
    assert [member["id"] for member in said("members")] == [status["node_id"]]
    out = StringIO()
    call_command("cluster", "status", stdout=out)
    assert "  healthy=True  " in out.getvalue()
    assert "members" not in out.getvalue()


@pytest.mark.usefixtures("live_node")
def test_a_backup_restored_into_empty_directories_is_the_same_cluster_again(tmp_path):
    session = registered()
    task = claimed(session)
    services.acquire_lock("precious", "me", ttl_s=600, actor=ACTOR)
    file = tmp_path / "backup"
    said("backup", str(file))
    before = decode_snapshot(node_client().state())
    copy = Cluster(3, database_url=None)
    try:
        for node in copy.nodes:
            environment = node.environment
            subprocess.run(
                [sys.executable, str(ROOT / "manage.py"), "cluster", "restore", str(file)],
                env=environment,
                cwd=ROOT,
                check=True,
                timeout=60,
            )
        after = decode_snapshot(copy.start().client().state())
    finally:
        copy.close()

    assert [one.lease_token for one in after.sessions] == [one.lease_token for one in before.sessions]
    assert str(task.id) in {one.task_id for one in after.tasks}
    assert [lock.fencing_token for lock in after.locks] == [lock.fencing_token for lock in before.locks]
    assert after.revision > before.revision - 1


def test_a_damaged_backup_is_refused(tmp_path):
    file = tmp_path / "backup"
    file.write_bytes(os.urandom(100))

    with pytest.raises(CommandError, match="no backup"):
        said("restore", str(file))


def test_a_backup_is_not_restored_over_data(tmp_path, settings):
    import dataclasses

    from coordination.machine.machine import Machine
    from coordination.node.archive import packed

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "journal-0").write_bytes(b"precious")
    (tmp_path / "backup").write_bytes(packed(Machine().snapshot()))
    settings.GAIA = dataclasses.replace(settings.GAIA, cluster_data_dir=tmp_path / "data")

    with pytest.raises(CommandError, match="not empty"):
        said("restore", str(tmp_path / "backup"))


@pytest.mark.usefixtures("live_node")
def test_a_running_nodes_journal_can_be_inspected(live_node):
    registered()

    lines = said("inspect-journal", str(live_node.folder / "n0"))

    assert any("SessionRegister" in line["commands"] for line in lines)
    assert {line["kind"] for line in lines} <= {"entry", "cut", "vote", "reset", "segment"}


def test_a_folder_that_is_not_there_is_not_an_empty_journal(tmp_path):
    with pytest.raises(CommandError, match="there is no folder"):
        said("inspect-journal", str(tmp_path / "mistyped"))
