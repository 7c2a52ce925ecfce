"""Tasks through the services, over a real node and a real database."""

import pytest

from coordination import selectors, services
from coordination.models import DistributedTask
from coordination.services import NewSession, NewTask

ACTOR = "test"


def registered(name, **values):
    return services.register_session(NewSession(session_name=name("s"), **values), actor=ACTOR)


@pytest.mark.usefixtures("live_node")
def test_a_task_goes_from_enqueue_to_completed(name):
    session = registered(name)
    made = services.enqueue(NewTask(name("key"), "review", {"file": "a.py"}), actor=ACTOR)

    claimed = services.claim(session.session_name, session.lease_token, actor=ACTOR)
    done = services.complete(made.task.pk, claimed.tasks[0].claim_token, {"ok": True}, actor=ACTOR)

    selectors.wait_until_projected(done.revision)
    row = DistributedTask.objects.get(pk=made.task.pk)
    assert claimed.tasks[0].task_data == {"file": "a.py"}
    assert (row.status, row.result, row.claimed_by) == ("completed", {"ok": True}, None)
