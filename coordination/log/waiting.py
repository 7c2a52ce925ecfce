"""A caller that waits for one outcome: settled exactly once, at the latest by its deadline."""

import logging

from pysyncobj import FAIL_REASON

from coordination.log.contract import Answer, Committed, NotApplied, Outcome, Unknown

log = logging.getLogger(__name__)

NOT_APPLIED = {
    FAIL_REASON.QUEUE_FULL: "the queue of waiting commands is full",
    FAIL_REASON.MISSING_LEADER: "no leader is known at the moment",
    FAIL_REASON.DISCARDED: "another leader's entry took its place",
    FAIL_REASON.NOT_LEADER: "the member asked is not the leader any more",
    FAIL_REASON.REQUEST_DENIED: "the leader refused it",
}
UNKNOWN = {
    FAIL_REASON.LEADER_CHANGED: "the leader changed before it answered",
    FAIL_REASON.UNKNOWN_OUTCOME: "its place in the log was covered by a snapshot or by a change of leader",
}


class Waiting:
    """`deadline` is on the replica's clock. A read that runs out of time changed nothing: `NotApplied`."""

    __slots__ = ("_callback", "deadline", "is_read", "is_settled")

    def __init__(self, callback: Answer, deadline: float, *, is_read: bool = False) -> None:
        self._callback, self.deadline, self.is_read, self.is_settled = callback, deadline, is_read, False

    def settle(self, outcome: Outcome) -> None:
        """Answer the caller, the first time; later outcomes are dropped."""
        if self.is_settled:
            return
        self.is_settled = True
        try:
            self._callback(outcome)
        except Exception:
            # A caller's defect must not stop the member: the entry is applied and others wait behind it.
            log.exception("outcome_callback_raised")

    def answer(self, result: object, reason: int) -> None:
        """The form in which pysyncobj answers."""
        if reason == FAIL_REASON.SUCCESS:
            self.settle(Committed(result))
        elif reason in NOT_APPLIED:
            self.settle(NotApplied(NOT_APPLIED[reason]))
        else:
            self.settle(Unknown(UNKNOWN.get(reason, f"reason {reason}")))

    def give_up(self, why: str) -> None:
        """Answer that no outcome came."""
        self.settle(NotApplied(why) if self.is_read else Unknown(why))
