"""The coordination calls over real HTTP: the contract, call by call."""

from __future__ import annotations

import uuid

import pytest

from coordination import services
from coordination.errors import InvalidError

PENDING = "pending"


def is_problem(answer, status, slug):
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["type"] == slug, answer.body
    return answer.json()


# Sessions


def test_a_session_registers_and_is_listed(site, name):
    session_name = name("east/claude")

    answer = site.agent(
        "POST",
        "sessions",
        {
            "session_name": session_name,
            "tier": "worker",
            "provider": "claude",
            "capabilities": ["python"],
            "metadata": {"host": "a"},
            "time_windows": [{"days": ["mon"], "from_time": "08:00", "to_time": "17:00"}],
        },
    )

    assert answer.status == 201, answer.body
    made = answer.json()
    assert made["status"] == "idle"
    assert made["health_status"] == "healthy"
    assert made["max_concurrent_tasks"] == 5
    assert made["lease_token"] > 0
    assert made["heartbeat_interval_s"] == 10
    assert made["lease_expires_at"].endswith("Z")
    assert answer.index > 0
    listed = site.agent("GET", f"sessions/{session_name}?min_index={answer.index}").json()
    assert listed["id"] == made["id"]
    assert listed["capabilities"] == ["python"]
    assert listed["time_windows"][0]["from_time"] == "08:00"
    assert "lease_token" not in listed


def test_a_live_name_is_a_conflict_and_its_token_resumes(site, name):
    session = site.session(name("s"))
    body = {key: session[key] for key in ("session_name", "tier", "provider")}

    is_problem(site.agent("POST", "sessions", body), 409, "conflict")
    resumed = site.agent("POST", "sessions", body | {"lease_token": session["lease_token"]})

    assert resumed.status == 201
    assert resumed.json()["id"] == session["id"]


def test_a_batch_of_sessions_answers_each_in_order(site, name):
    known = site.session(name("s"))
    fresh = name("s")
    bodies = [
        {"session_name": fresh, "tier": "worker", "provider": "codex"},
        {"session_name": "not a name", "tier": "worker", "provider": "codex"},
        {"session_name": known["session_name"], "tier": "worker", "provider": "claude"},
    ]

    answer = site.agent("POST", "sessions", bodies)

    assert answer.status == 200
    first, second, third = answer.json()
    assert (first["status"], first["session_name"], first["state"]) == (201, fresh, "idle")
    assert (second["status"], second["type"]) == (400, "validation-error")
    assert second["errors"][0]["loc"] == ["body", 1, "session_name"]
    assert (third["status"], third["type"]) == (409, "conflict")


def test_a_heartbeat_renews_and_a_foreign_token_is_409(site, name):
    session = site.session(name("s"))
    address = f"sessions/{session['session_name']}/heartbeat"

    good = site.agent("POST", address, {"lease_token": session["lease_token"], "load": 0.5})
    bad = site.agent("POST", address, {"lease_token": session["lease_token"] + 1})

    assert good.status == 200, good.body
    assert good.json()["lease_expires_at"] >= session["lease_expires_at"]
    assert good.json()["directives"] == []
    is_problem(bad, 409, "lease-expired")


def test_heartbeats_of_many_name_those_refused(site, name):
    one, other = site.session(name("s")), site.session(name("s"))

    answer = site.agent(
        "POST",
        "heartbeats",
        {
            "heartbeats": [
                {"session_name": one["session_name"], "lease_token": one["lease_token"]},
                {"session_name": other["session_name"], "lease_token": other["lease_token"] + 5},
                {"session_name": "nobody", "lease_token": 1},
                {"session_name": one["session_name"]},
            ]
        },
    )

    assert answer.status == 200, answer.body
    body = answer.json()
    assert body["accepted"] == 1
    assert [(line["session_name"], line["type"]) for line in body["rejected"]] == [
        (other["session_name"], "lease-expired"),
        ("nobody", "not-found"),
        (one["session_name"], "validation-error"),
    ]


def test_a_paused_session_gets_no_task_and_is_told(site, name):
    session, kind = site.session(name("s")), name("t")
    site.task(kind)

    paused = site.admin("POST", f"sessions/{session['session_name']}/pause", {"reason": "lunch"})
    claim = site.agent(
        "POST",
        "tasks/claim",
        {"session_name": session["session_name"], "lease_token": session["lease_token"]},
    )
    beat = site.agent(
        "POST", f"sessions/{session['session_name']}/heartbeat", {"lease_token": session["lease_token"]}
    )
    resumed = site.admin("POST", f"sessions/{session['session_name']}/resume")

    assert paused.json()["status"] == "paused", paused.body
    assert claim.json() == {"tasks": [], "reason": "paused"}
    assert [directive["kind"] for directive in beat.json()["directives"]] == ["pause"]
    assert resumed.json()["status"] == "idle"


def test_a_failed_session_gives_its_tasks_back(site, name):
    session, kind = site.session(name("s")), name("t")
    task = site.task(kind)
    site.claimed(session, kind)

    answer = site.agent("POST", f"sessions/{session['session_name']}/fail", {"reason": "out of memory"})

    assert answer.status == 200, answer.body
    assert answer.json()["requeued"] == 1
    seen = site.agent("GET", f"tasks/{task['id']}?min_index={answer.index}").json()
    assert seen["status"] == PENDING
    assert seen["retry_count"] == 1
    assert seen["attempts"][0]["outcome"] == "session_lost"


def test_goodbye_gives_tasks_back_without_counting_a_retry(site, name):
    session, kind = site.session(name("s")), name("t")
    task = site.task(kind)
    site.claimed(session, kind)

    answer = site.agent("DELETE", f"sessions/{session['session_name']}")

    assert answer.status == 200, answer.body
    seen = site.agent("GET", f"tasks/{task['id']}?min_index={answer.index}").json()
    assert (seen["status"], seen["retry_count"]) == (PENDING, 0)


def test_a_session_is_changed(site, name):
    session = site.session(name("s"))

    answer = site.agent(
        "PATCH", f"sessions/{session['session_name']}", {"max_concurrent_tasks": 2, "capabilities": ["go"]}
    )

    assert answer.status == 200, answer.body
    assert answer.json()["max_concurrent_tasks"] == 2
    seen = site.agent("GET", f"sessions/{session['session_name']}?min_index={answer.index}").json()
    assert (seen["max_concurrent_tasks"], seen["capabilities"]) == (2, ["go"])


def test_sessions_are_filtered(site, name):
    session = site.session(name("s"), provider="gemini", tier="manager")
    index = site.agent("GET", "tasks?consistency=linearizable").index

    def names(query):
        found = site.agent("GET", f"sessions?limit=500&min_index={index}&{query}").json()
        return {one["session_name"] for one in found["results"]}

    assert session["session_name"] in names("provider=gemini&tier=manager&available=true&status=idle")
    assert session["session_name"] not in names("provider=claude")
    assert session["session_name"] not in names("available=false")


def test_an_unknown_session_is_404(site):
    is_problem(site.agent("GET", "sessions/nobody"), 404, "not-found")
    is_problem(site.admin("POST", "sessions/nobody/pause"), 404, "not-found")


# Tasks


def test_a_task_goes_all_its_way(site, name):
    session, kind = site.session(name("s")), name("t")
    made = site.task(kind, task_data={"file": "a.py"}, priority=3)
    assert made["status"] == PENDING

    claimed = site.claimed(session, kind)
    started = site.agent("POST", f"tasks/{made['id']}/start", {"claim_token": claimed["claim_token"]})
    renewed = site.agent(
        "POST",
        f"tasks/{made['id']}/renew",
        {"claim_token": claimed["claim_token"], "progress": {"percent": 40, "note": "half"}},
    )
    done = site.agent(
        "POST",
        f"tasks/{made['id']}/complete",
        {"claim_token": claimed["claim_token"], "result": {"lines": 7}},
    )

    assert claimed["task_data"] == {"file": "a.py"}
    assert claimed["attempt"] == 1
    assert started.json()["status"] == "in_progress", started.body
    assert renewed.json()["claim_expires_at"] >= claimed["claim_expires_at"]
    assert done.json()["status"] == "completed", done.body
    seen = site.agent("GET", f"tasks/{made['id']}?min_index={done.index}").json()
    assert seen["status"] == "completed"
    assert seen["result"] == {"lines": 7}
    assert [(one["attempt_number"], one["outcome"]) for one in seen["attempts"]] == [(1, "completed")]


def test_the_same_key_is_the_same_task_and_another_body_a_conflict(site, name):
    key = name("t")
    made = site.task(key)

    again = site.agent("POST", "tasks", {"idempotency_key": key, "task_type": key})
    other = site.agent("POST", "tasks", {"idempotency_key": key, "task_type": key, "priority": 1})

    assert again.status == 200
    assert again.json()["id"] == made["id"]
    is_problem(other, 409, "conflict")


def test_a_batch_of_tasks_keeps_the_good_ones(site, name):
    key = name("t")
    bodies = [
        {"idempotency_key": key, "task_type": "t"},
        {"task_type": "t"},
        {"idempotency_key": key, "task_type": "other"},
        {"idempotency_key": name("t"), "task_type": "t", "depends_on": [str(uuid.uuid4())]},
        7,
    ]

    lines = site.agent("POST", "tasks", bodies).json()

    assert [line["status"] for line in lines] == [201, 400, 409, 400, 400]
    assert lines[0]["state"] == PENDING
    assert lines[1]["errors"][0]["loc"] == ["body", 1, "idempotency_key"]
    assert lines[3]["errors"][0]["loc"] == ["body", 3, "depends_on"]


def test_a_stale_token_changes_nothing(site, name):
    session, kind = site.session(name("s")), name("t")
    made = site.task(kind)
    claimed = site.claimed(session, kind)
    wrong = {"claim_token": claimed["claim_token"] - 1}

    is_problem(site.agent("POST", f"tasks/{made['id']}/complete", wrong), 412, "stale-token")
    is_problem(site.agent("POST", f"tasks/{made['id']}/start", wrong), 412, "stale-token")
    is_problem(site.agent("POST", f"tasks/{made['id']}/renew", wrong), 412, "stale-token")
    is_problem(
        site.agent("POST", f"tasks/{made['id']}/fail", wrong | {"error_message": "x"}), 412, "stale-token"
    )

    assert site.agent("GET", f"tasks/{made['id']}?consistency=linearizable").json()["status"] == "assigned"


def test_the_same_completion_again_is_200(site, name):
    session, kind = site.session(name("s")), name("t")
    made = site.task(kind)
    claimed = site.claimed(session, kind)
    body = {"claim_token": claimed["claim_token"], "result": 1}

    first = site.agent("POST", f"tasks/{made['id']}/complete", body)
    second = site.agent("POST", f"tasks/{made['id']}/complete", body)

    assert (first.status, second.status) == (200, 200)


def test_a_failure_is_retried_later_and_the_last_one_is_final(site, name):
    session, kind = site.session(name("s")), name("t")
    made = site.task(kind, max_retries=1)
    claimed = site.claimed(session, kind)

    first = site.agent(
        "POST", f"tasks/{made['id']}/fail", {"claim_token": claimed["claim_token"], "error_message": "boom"}
    )
    assert first.status == 200, first.body
    assert (first.json()["status"], first.json()["retry_count"]) == (PENDING, 1)
    assert first.json()["run_after"]
    again = site.claimed(session, kind)
    last = site.agent(
        "POST", f"tasks/{made['id']}/fail", {"claim_token": again["claim_token"], "error_message": "boom"}
    )

    assert last.json()["status"] == "failed"
    retried = site.admin("POST", f"tasks/{made['id']}/retry")
    assert (retried.json()["status"], retried.json()["retry_count"]) == (PENDING, 0), retried.body


def test_what_is_not_retryable_fails_at_once(site, name):
    session, kind = site.session(name("s")), name("t")
    made = site.task(kind)
    claimed = site.claimed(session, kind)

    answer = site.agent(
        "POST",
        f"tasks/{made['id']}/fail",
        {"claim_token": claimed["claim_token"], "error_message": "never", "retryable": False},
    )

    assert answer.json()["status"] == "failed"


def test_a_cancelled_task_is_not_claimed(site, name):
    session, kind = site.session(name("s")), name("t")
    made = site.task(kind)

    answer = site.admin("POST", f"tasks/{made['id']}/cancel", {"reason": "not needed"})
    claim = site.agent(
        "POST",
        "tasks/claim",
        {
            "session_name": session["session_name"],
            "lease_token": session["lease_token"],
            "task_types": [kind],
        },
    )

    assert answer.json()["status"] == "cancelled", answer.body
    assert claim.json()["tasks"] == []


def test_a_claim_waits_for_a_task(site, name):
    from concurrent.futures import ThreadPoolExecutor

    session, kind = site.session(name("s")), name("t")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(site.claimed, session, kind)
        site.task(kind)

        assert waiting.result(20)["task_type"] == kind


def test_an_empty_claim_says_why(site, name):
    session = site.session(name("s"))
    body = {
        "session_name": session["session_name"],
        "lease_token": session["lease_token"],
        "task_types": [name("t")],
    }

    answer = site.agent("POST", "tasks/claim", body | {"wait_s": 0.2})

    assert answer.json() == {"tasks": [], "reason": "nothing_pending"}


def test_many_completions_are_judged_one_by_one(site, name):
    session, kind = site.session(name("s")), name("t")
    made = site.task(kind)
    claimed = site.claimed(session, kind)

    lines = site.agent(
        "POST",
        "tasks/complete",
        {
            "completions": [
                {"id": made["id"], "claim_token": claimed["claim_token"], "result": [1]},
                {"id": made["id"], "claim_token": claimed["claim_token"] + 1},
                {"id": "seven", "claim_token": 1},
                {"id": str(uuid.uuid4()), "claim_token": 1},
            ]
        },
    ).json()

    assert [line["status"] for line in lines][:3] == [200, 412, 400]
    assert lines[0]["state"] == "completed"
    assert lines[2]["errors"][0]["loc"] == ["body", "completions", 2, "id"]
    assert lines[3]["status"] in (404, 412)


def test_dependencies_are_waited_for(site, name):
    session, first, second = site.session(name("s")), name("t"), name("t")
    one = site.task(first)
    site.task(second, depends_on=[one["id"]])
    body = {
        "session_name": session["session_name"],
        "lease_token": session["lease_token"],
        "task_types": [second],
    }

    assert site.agent("POST", "tasks/claim", body).json()["tasks"] == []
    claimed = site.claimed(session, first)
    site.agent("POST", f"tasks/{one['id']}/complete", {"claim_token": claimed["claim_token"]})

    assert site.claimed(session, second)["task_type"] == second


def test_a_task_is_explained(site, name):
    made = site.task(name("t"))

    answer = site.agent("GET", f"tasks/{made['id']}/explain")

    assert answer.status == 200, answer.body
    assert isinstance(answer.json(), dict)


def test_tasks_are_filtered_and_paged(site, name):
    kind = name("t")
    keys = [name("k") for _ in range(5)]
    site.agent(
        "POST",
        "tasks",
        [{"idempotency_key": key, "task_type": kind, "priority": place} for place, key in enumerate(keys)],
    )

    page = site.agent("GET", f"tasks?task_type={kind}&limit=2&ordering=priority").json()
    seen = [task["idempotency_key"] for task in page["results"]]
    assert page["previous"] is None
    while page["next"]:
        page = site.agent("GET", page["next"]).json()
        seen += [task["idempotency_key"] for task in page["results"]]
    back = site.agent("GET", page["previous"]).json()

    assert seen == keys
    assert [task["idempotency_key"] for task in back["results"]] == keys[2:4]
    high = site.agent("GET", f"tasks?task_type={kind}&priority_min=3&status=pending").json()
    assert {task["idempotency_key"] for task in high["results"]} == set(keys[3:])
    assert (
        site.agent("GET", f"tasks?task_type={kind}&created_after=2999-01-01T00:00:00Z").json()["results"]
        == []
    )


# Locks


def test_a_lock_has_one_holder(site, name):
    key = name("deploy/main")

    held = site.agent("POST", f"locks/{key}/acquire", {"owner_id": "a", "ttl_s": 30})
    other = site.agent("POST", f"locks/{key}/acquire", {"owner_id": "b", "ttl_s": 30})
    again = site.agent("POST", f"locks/{key}/acquire", {"owner_id": "a", "ttl_s": 30})

    assert held.status == 200, held.body
    assert held.json()["fencing_token"] > 0
    body = is_problem(other, 409, "conflict")
    assert body["owner_id"] == "a"
    assert body["expires_at"]
    assert again.json()["fencing_token"] == held.json()["fencing_token"]
    assert again.json()["renewed_count"] == 1
    listed = site.agent("GET", f"locks/{key}?min_index={again.index}").json()
    assert listed["owner_id"] == "a"


def test_only_the_holder_renews_and_releases(site, name):
    key = name("lock")
    held = site.agent("POST", f"locks/{key}/acquire", {"owner_id": "a", "ttl_s": 30}).json()
    token = held["fencing_token"]

    is_problem(
        site.agent("POST", f"locks/{key}/renew", {"owner_id": "b", "fencing_token": token}),
        412,
        "stale-token",
    )
    is_problem(
        site.agent("POST", f"locks/{key}/release", {"owner_id": "a", "fencing_token": token + 1}),
        412,
        "stale-token",
    )
    renewed = site.agent("POST", f"locks/{key}/renew", {"owner_id": "a", "fencing_token": token})
    released = site.agent("POST", f"locks/{key}/release", {"owner_id": "a", "fencing_token": token})

    assert renewed.json()["renewed_count"] == 1, renewed.body
    assert released.status == 200
    is_problem(site.agent("GET", f"locks/{key}?min_index={released.index}"), 404, "not-found")


def test_a_waiter_gets_the_lock_when_it_is_free_with_a_greater_token(site, name):
    from concurrent.futures import ThreadPoolExecutor

    key = name("lock")
    held = site.agent("POST", f"locks/{key}/acquire", {"owner_id": "a", "ttl_s": 30}).json()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(
            site.agent, "POST", f"locks/{key}/acquire", {"owner_id": "b", "ttl_s": 30, "wait_s": 15}
        )
        site.agent("POST", f"locks/{key}/release", {"owner_id": "a", "fencing_token": held["fencing_token"]})
        got = waiting.result(30)

    assert got.status == 200, got.body
    assert got.json()["owner_id"] == "b"
    assert got.json()["fencing_token"] > held["fencing_token"]


def test_waiting_in_vain_is_a_conflict(site, name):
    key = name("lock")
    site.agent("POST", f"locks/{key}/acquire", {"owner_id": "a", "ttl_s": 30})

    answer = site.agent("POST", f"locks/{key}/acquire", {"owner_id": "b", "ttl_s": 30, "wait_s": 0.3})

    assert is_problem(answer, 409, "conflict")["owner_id"] == "a"


def test_locks_are_listed(site, name):
    key = name("lock")
    held = site.agent("POST", f"locks/{key}/acquire", {"owner_id": key, "ttl_s": 30})

    listed = site.agent("GET", f"locks?owner_id={key}&min_index={held.index}").json()

    assert [lock["lock_key"] for lock in listed["results"]] == [key]


# Lessons and affinities


def test_a_lesson_counts_its_tasks(site, name):
    lesson = site.agent("POST", "lessons", {"project": "gaia", "title": "Docs", "priority": 2}).json()
    session, kind = site.session(name("s")), name("t")
    one = site.task(kind, lesson_id=lesson["id"])
    site.task(name("t"), lesson_id=lesson["id"])
    claimed = site.claimed(session, kind)
    done = site.agent("POST", f"tasks/{one['id']}/complete", {"claim_token": claimed["claim_token"]})

    progress = site.agent("GET", f"lessons/{lesson['id']}/progress?min_index={done.index}").json()

    assert (progress["tasks_total"], progress["tasks_completed"], progress["percent"]) == (2, 1, 50.0)
    assert progress["eta_s"] is not None
    seen = site.agent("GET", f"lessons/{lesson['id']}").json()
    assert (seen["project"], seen["status"]) == ("gaia", "in_progress")


def test_a_lesson_is_changed_and_deleted(site, name):
    made = site.agent("POST", "lessons", {"title": "A"})
    assert made.status == 201, made.body
    address = f"lessons/{made.json()['id']}"

    changed = site.agent("PATCH", address, {"title": "B", "metadata": {"a": 1}})
    assert changed.json()["title"] == "B", changed.body
    is_problem(site.agent("PATCH", address, {"tasks_completed": 9}), 400, "validation-error")
    assert site.agent("DELETE", address).status == 204
    is_problem(site.agent("GET", address), 404, "not-found")


def test_lessons_are_filtered(site, name):
    project = name("project")
    made = site.agent("POST", "lessons", {"title": "A", "project": project}).json()

    found = site.agent("GET", f"lessons?project={project}&status=pending").json()["results"]

    assert [lesson["id"] for lesson in found] == [made["id"]]


def test_an_affinity_lives(site, name):
    session = site.session(name("s"))
    lesson = site.agent("POST", "lessons", {"title": "A"}).json()
    body = {"session_name": session["session_name"], "lesson_id": lesson["id"], "affinity_score": 0.7}

    made = site.agent("POST", "affinities", body)
    assert made.status == 201, made.body
    address = f"affinities/{made.json()['id']}"
    seen = site.agent("GET", f"{address}?min_index={made.index}").json()
    assert (seen["session_name"], seen["affinity_score"]) == (session["session_name"], 0.7)
    changed = site.agent("PATCH", address, {"affinity_score": 0.2})
    assert changed.json()["affinity_score"] == 0.2, changed.body
    listed = site.agent(
        "GET", f"affinities?session_name={session['session_name']}&min_index={changed.index}"
    ).json()
    assert [one["affinity_score"] for one in listed["results"]] == [0.2]
    gone = site.agent("DELETE", address)
    assert gone.status == 204
    is_problem(site.agent("GET", f"{address}?min_index={gone.index}"), 404, "not-found")


def test_an_affinity_may_be_for_any_work(site, name):
    session = site.session(name("s"))
    body = {"session_name": session["session_name"], "affinity_score": 0.4}

    made = site.agent("POST", "affinities", body)
    assert (made.status, made.json()["lesson_id"]) == (201, None), made.body
    address = f"affinities/{made.json()['id']}"
    seen = site.agent("GET", f"{address}?consistency=linearizable")
    assert (seen.json()["lesson_id"], seen.json()["affinity_score"]) == (None, 0.4), seen.body
    gone = site.agent("DELETE", address)
    assert gone.status == 204
    is_problem(site.agent("GET", f"{address}?min_index={gone.index}"), 404, "not-found")


# Cluster, events, consistency


def test_the_cluster_is_described(site):
    answer = site.agent("GET", "cluster").json()

    assert answer["role"] == "leader"
    assert answer["healthy"] is True
    assert answer["stale"] == ""
    assert answer["members"][0]["id"] == answer["node_id"]
    for field in ("term", "commit_index", "applied_index", "projected_index"):
        assert isinstance(answer[field], int)


def test_a_change_of_members_is_refused_with_its_reason(site):
    wish = {"id": "n9", "address": "127.0.0.1:9"}

    alone = is_problem(site.admin("POST", "cluster/members", wish), 409, "conflict")
    assert "CLUSTER_ENABLED is false" in alone["detail"]
    is_problem(site.admin("DELETE", "cluster/members/nobody"), 404, "not-found")
    last = is_problem(site.admin("DELETE", "cluster/members/n0"), 409, "conflict")
    assert "only voting member" in last["detail"]


@pytest.mark.parametrize(
    ("node_id", "address", "field"),
    [
        ("n9", "nowhere", "address"),
        ("n9", "a..b:7400", "address"),
        ("n9", "x" * 64 + ".example:7400", "address"),
        ("n9", "127.0.0.1:0", "address"),
        ("n9", "127.0.0.1:65536", "address"),
        ("n9", "[::1:7400", "address"),
        ("n9", "[::x]:7400", "address"),
        ("n9", ":7400", "address"),
        ("two words", "127.0.0.1:9", "id"),
        ("n" * 65, "127.0.0.1:9", "id"),
    ],
)
def test_what_no_member_could_be_called_or_listen_at_never_reaches_the_log(site, node_id, address, field):
    answer = site.admin("POST", "cluster/members", {"id": node_id, "address": address})

    assert is_problem(answer, 400, "validation-error")["errors"][0]["loc"] == ["body", field]
    with pytest.raises(InvalidError, match=rf"^{field}: must be"):
        services.add_member(node_id, address)


@pytest.mark.parametrize("address", ["10.0.0.1:7400", "gaia-2.example.:1", "node_2:65535", "[::1]:7400"])
def test_a_name_and_both_kinds_of_address_can_be_a_members(site, address):
    answer = site.admin("POST", "cluster/members", {"id": "n9", "address": address})

    assert "CLUSTER_ENABLED is false" in is_problem(answer, 409, "conflict")["detail"]


def test_events_come_in_order_and_none_is_missed(site, name):
    start = site.agent("GET", "events?limit=1&consistency=linearizable").index
    session_name = name("s")
    site.session(session_name)
    index = site.agent("DELETE", f"sessions/{session_name}").index

    page = site.agent("GET", f"events?after_index={start}&limit=1&min_index={index}").json()
    seen = page["results"]
    while page["next"]:
        page = site.agent("GET", page["next"]).json()
        seen += page["results"]

    mine = [event for event in seen if event["subject"] == session_name]
    assert mine[0]["kind"] == "session_registered"
    assert mine[-1]["kind"] == "session_deregistered"
    assert mine[0]["actor"] == "key:agent"
    places = [(event["index"], event["sequence"]) for event in seen]
    assert places == sorted(set(places))


def test_a_read_waits_for_a_write_and_gives_up_in_time(site, name):
    session = site.agent(
        "POST", "sessions", {"session_name": name("s"), "tier": "worker", "provider": "claude"}
    )

    seen = site.agent("GET", f"sessions?min_index={session.index}")
    never = site.agent("GET", f"sessions?min_index={session.index + 10**9}")

    assert seen.index >= session.index
    is_problem(never, 503, "overloaded")
    assert int(never.headers["Retry-After"]) >= 1


def test_the_agents_client_is_served(site):
    from coordination.api.agent import CLIENT

    answer = site.nobody("GET", "/agent/gaia_agent.py")

    assert answer.status == 200
    assert answer.body == CLIENT.read_bytes()
