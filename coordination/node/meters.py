"""What a node measures of itself, for Prometheus."""

from prometheus_client import Counter, Gauge, Histogram

_FAST_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)

COMMANDS = Counter("gaia_node_commands_total", "Commands answered by this node", ["outcome"])
COMMIT_SECONDS = Histogram(
    "gaia_node_commit_seconds", "From a command's arrival to its application here", buckets=_FAST_S
)
ENTRY_COMMANDS = Histogram(
    "gaia_node_entry_commands",
    "Commands in one entry of the log",
    buckets=(1, 2, 5, 10, 50, 100, 500, 1000, 5000),
)
COMMANDS_WAITING = Gauge("gaia_node_commands_waiting", "Commands not yet answered")
CLAIMS_WAITING = Gauge("gaia_node_claims_waiting", "Claims that wait for a task")
LOCKS_WAITING = Gauge("gaia_node_locks_waiting", "Lock requests that wait for their turn")
REQUESTS_REFUSED = Counter("gaia_node_requests_refused_total", "Requests not carried out", ["reason"])

RAFT_TERM = Gauge("gaia_raft_term", "The term this node is in")
RAFT_COMMIT_INDEX = Gauge("gaia_raft_commit_index", "The last committed index of the log")
RAFT_APPLIED_INDEX = Gauge("gaia_raft_applied_index", "The last index applied here")
RAFT_IS_LEADER = Gauge("gaia_raft_is_leader", "1 on the leader, 0 elsewhere")
RAFT_EVENTS = Gauge(
    "gaia_raft_events",
    "What befell this node's seat since it started: refused peers, elections, ...",
    ["kind"],
)
RAFT_MEMBER_LAG = Gauge(
    "gaia_raft_member_lag", "Entries a member is behind, as the leader sees it", ["member"]
)

REVISION = Gauge("gaia_machine_revision", "The machine's revision here")
SESSIONS_ONLINE = Gauge("gaia_machine_sessions_online", "Sessions with a live lease")
TASKS_LIVE = Gauge("gaia_machine_tasks_live", "Tasks that are not final", ["state"])
LOCKS_HELD = Gauge("gaia_machine_locks_held", "Locks held")

TICKS = Counter("gaia_duty_ticks_total", "Ticks proposed by this node", ["outcome"])
TASKS_FED = Counter("gaia_duty_tasks_fed_total", "Rows offered to the machine by the feeder", ["outcome"])
TASKS_PUSHED = Counter("gaia_duty_tasks_pushed_total", "Tasks assigned by the scheduler", ["outcome"])

PROJECTION_REVISION = Gauge("gaia_projection_revision", "The last revision this node saw projected")
PROJECTION_LAG = Gauge("gaia_projection_lag_revisions", "Revisions applied here and not yet projected")
PROJECTION_BACKLOG = Gauge("gaia_projection_backlog_events", "Events kept for the projection")
PROJECTION_SECONDS = Histogram(
    "gaia_projection_seconds", "One transaction of the projection", buckets=_FAST_S
)
PROJECTED_EVENTS = Counter("gaia_projection_events_total", "Events written to PostgreSQL")
RECONCILIATIONS = Counter(
    "gaia_projection_reconciliations_total", "Times the rows were rewritten from the state"
)
PROJECTION_FAILURES = Counter("gaia_projection_failures_total", "Transactions of the projection that failed")
