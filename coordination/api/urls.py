"""Addresses of the coordination API. Names of sessions and keys of locks may hold slashes."""

from __future__ import annotations

from coordination.api import affinities, cluster, events, lessons, locks, sessions, tasks
from gaia_site.api.addresses import address

urlpatterns = [
    address("sessions", sessions.Sessions),
    address("sessions/<path:name>/heartbeat", sessions.Heartbeat),
    address("sessions/<path:name>/pause", sessions.Pause),
    address("sessions/<path:name>/resume", sessions.Resume),
    address("sessions/<path:name>/drain", sessions.Drain),
    address("sessions/<path:name>/fail", sessions.Fail),
    address("sessions/<path:name>", sessions.Session),
    address("heartbeats", sessions.Heartbeats),
    address("lessons", lessons.Lessons),
    address("lessons/<uuid:lesson_id>", lessons.OneLesson),
    address("lessons/<uuid:lesson_id>/progress", lessons.Progress),
    address("tasks", tasks.Tasks),
    address("tasks/claim", tasks.Claim),
    address("tasks/complete", tasks.Completions),
    address("tasks/<uuid:task_id>", tasks.Task),
    address("tasks/<uuid:task_id>/start", tasks.Start),
    address("tasks/<uuid:task_id>/renew", tasks.Renew),
    address("tasks/<uuid:task_id>/complete", tasks.Complete),
    address("tasks/<uuid:task_id>/fail", tasks.Fail),
    address("tasks/<uuid:task_id>/cancel", tasks.Cancel),
    address("tasks/<uuid:task_id>/retry", tasks.Retry),
    address("tasks/<uuid:task_id>/explain", tasks.Explain),
    address("locks", locks.Locks),
    address("locks/<path:key>/acquire", locks.Acquire),
    address("locks/<path:key>/renew", locks.Renew),
    address("locks/<path:key>/release", locks.Release),
    address("locks/<path:key>", locks.Lock),
    address("affinities", affinities.Affinities),
    address("affinities/<uuid:affinity_id>", affinities.Affinity),
    address("cluster", cluster.Cluster),
    address("cluster/members", cluster.Members),
    address("cluster/members/<str:node_id>", cluster.Member),
    address("cluster/transfer-leadership", cluster.Transfer),
    address("events", events.Events),
]
