"""Each way in which pysyncobj alone, or the implementation this system succeeds, fails: the tests that hold it off.

The tables say in words what goes wrong there and name what would fail if it went wrong here. This test only checks that
what is named exists; `docs/consensus.md` prints the first table.
"""

import ast
import functools
from pathlib import Path

import pytest

from tests.log.directed import DIRECTED
from tests.log.mutations import MUTATIONS

ROOT = Path(__file__).parents[2]
HISTORY = "log/test_simulation.py::test_it_survives_the_history"
CAUGHT = "log/test_simulation.py::test_a_broken_promise_is_caught"
SEEDS = "log/test_simulation.py::test_nothing_acknowledged_is_lost_and_all_agree"

OF_PYSYNCOBJ: dict[str, tuple[str, ...]] = {
    "the journal is thrown away around compaction": (
        f"{HISTORY}[compaction_window]",
        f"{CAUGHT}[clear_tail]",
    ),
    "an answer does not say of which term it is": (
        f"{HISTORY}[stale_acknowledgement]",
        f"{CAUGHT}[stale_answer]",
    ),
    "a follower cuts what it has acknowledged": (
        f"{HISTORY}[repeated_resend]",
        f"{HISTORY}[answer_rolls_back]",
        f"{CAUGHT}[cut_always]",
        "log/test_refusals.py::test_entries_that_are_here_are_neither_cut_nor_written_again",
    ),
    "several changes of membership at once make majorities that do not meet": (
        f"{HISTORY}[changes_at_once]",
        f"{HISTORY}[two_changes_raced]",
        f"{CAUGHT}[two_changes_at_once]",
        f"{CAUGHT}[change_before_own_entry]",
    ),
    "a snapshot's chunk commits the receiver's own tail": (
        f"{HISTORY}[chunk_commits]",
        f"{CAUGHT}[trust_chunk_commit]",
    ),
    "a snapshot that did not load is acknowledged": (
        "log/test_refusals.py::test_a_damaged_snapshot_is_neither_installed_nor_acknowledged",
        "log/test_snapshot.py::test_chunks_out_of_order_change_nothing",
    ),
    "term and vote are written but not synced": (
        f"{HISTORY}[second_vote]",
        f"{CAUGHT}[forget_vote]",
        f"{CAUGHT}[forget_term]",
    ),
    "the journal is never synced": (
        f"{HISTORY}[power_lost_after_answer]",
        f"{CAUGHT}[skip_sync]",
        f"{CAUGHT}[answer_before_sync]",
        "log/test_member.py::test_nothing_is_answered_before_its_sync",
    ),
    "there is no checksum and no rule for torn writes": (
        "log/test_journal.py::test_any_changed_bit_before_the_last_batch_is_refused_with_its_place",
        "log/test_journal.py::test_a_journal_cut_at_any_byte_recovers_the_whole_batches_before_it",
        f"{CAUGHT}[ignore_crc]",
    ),
    "a stored commit index can exceed the log": (
        "log/test_journal.py::test_whenever_the_power_goes_what_comes_back_was_synced_or_was_being_synced",
        f"{CAUGHT}[commit_alone]",
    ),
    "a journal without a snapshot file loses the state": (
        "log/test_member.py::test_it_restarts_from_a_snapshot_and_the_entries_behind_it",
        "log/test_snapshot.py::test_a_member_refuses_to_start_when_no_snapshot_reaches_its_journal",
    ),
    "whatever a stranger sends is unpickled, and a peer is whoever says so": (
        "log/test_transport.py::test_a_pickle_bomb_is_refused_unread",
        "log/test_transport.py::test_another_secret_is_refused_and_counted",
        "log/test_refusals.py::test_kinds_that_pysyncobj_would_unpickle_are_applied_as_nothing",
        "log/test_pinned.py::test_nothing_in_coordination_can_unpickle",
    ),
    "with a password messages can be replayed": (
        "log/test_handshake.py::test_a_sealed_frame_cannot_be_used_twice",
        "log/test_handshake.py::test_a_recorded_handshake_cannot_be_played_again",
        "log/test_handshake.py::test_sessions_share_no_keys",
    ),
    "the numbers of methods follow their sorted names": (
        "machine/test_codec.py::test_the_golden_log_replays_to_the_golden_bytes",
    ),
    "an exception in the machine or in a callback stops the member or applies twice": (
        "machine/test_machine.py::test_any_bytes_give_a_value_and_change_nothing",
        "log/test_member.py::test_a_raising_callback_stops_nobody",
        f"{CAUGHT}[apply_twice]",
    ),
    "callbacks never come": (
        "log/test_member.py::test_stopping_answers_everybody",
        f"{HISTORY}[replaced_entry]",
    ),
    "idle links die, so that the first election fails": (
        "log/test_transport.py::test_idle_links_stay_and_a_silent_peer_is_let_go",
    ),
    "a member that returns or was stalled starts a needless election": (
        "log/test_refusals.py::test_a_member_that_hears_its_leader_votes_for_nobody_else",
        "log/test_cluster.py::test_a_stopped_leader_is_replaced_and_falls_in_when_it_goes_on",
    ),
    "a lost vote is not repeated": (
        "log/test_refusals.py::test_a_lost_vote_is_granted_again_to_the_same_candidate_only",
    ),
    "a deposed leader goes on believing and reads are stale": (
        f"{HISTORY}[deposed_leader_reads]",
        f"{CAUGHT}[read_without_round]",
        "log/test_refusals.py::test_a_deposed_leader_is_told_the_newer_term",
    ),
    "membership is forgotten at a restart and added members vote at once": (
        f"{HISTORY}[grown_then_restarted]",
        f"{HISTORY}[learners_alone]",
        f"{HISTORY}[members_in_a_snapshot]",
        f"{CAUGHT}[forget_members_at_restart]",
        f"{CAUGHT}[count_learners]",
    ),
    "a removed member is not told and disturbs the others": (
        f"{HISTORY}[removed_member_campaigns]",
        f"{CAUGHT}[hear_strangers]",
    ),
    "anybody may observe the whole log": ("log/test_refusals.py::test_nothing_is_heard_before_the_greeting",),
    "a dump stalls the tick and takes all entries a laggard needs": (
        "machine/test_machine.py::test_pieces_of_a_snapshot_are_of_its_moment_whatever_changes_meanwhile",
        f"{SEEDS}",
    ),
    "entries near the size of a batch are cut by wrong arithmetic": (
        "log/test_transport.py::test_a_frame_of_many_megabytes_arrives",
        "log/test_member.py::test_a_payload_over_the_limit_is_not_applied",
    ),
    "late data of a replaced connection is delivered, buffers have no bound": (
        "log/test_transport.py::test_a_newer_connection_takes_the_place_of_the_old_one",
        "log/test_transport.py::test_a_peer_that_does_not_read_is_let_go_when_its_buffer_is_full",
        "log/test_transport.py::test_an_oversized_frame_is_refused_by_its_length_alone",
    ),
    "refusals chase each other, and a member never catches up": (
        "log/test_refusals.py::test_refusals_give_one_constant_hint",
        f"{SEEDS}",
    ),
    "the journal's file grows for ever, and a full disk kills the process": (
        "log/test_journal.py::test_segments_go_only_from_the_front_so_that_no_hole_is_left",
        "log/test_room.py::test_a_cluster_goes_on_while_one_real_disk_is_full",
    ),
}

OF_THE_PREDECESSOR: dict[str, tuple[str, ...]] = {
    "the documented defaults do not start": (
        "house/test_env.py::test_an_empty_environment_gives_the_specified_defaults",
    ),
    "the advertised address is not used": (
        "coordination/test_cluster_members.py::test_members_are_shown_at_the_address_they_advertise",
        "log/test_founding.py::test_a_member_that_moves_is_found_at_its_new_address",
    ),
    "every server gets the same address, three form no cluster": (
        "coordination/test_node_parts.py::test_every_member_has_its_own_id_and_address",
    ),
    "a node is not in its own configuration": (
        "coordination/test_node_parts.py::test_a_node_that_is_not_a_member_does_not_start",
    ),
    "a node that has begun once fails at its restart": (
        "log/test_founding.py::test_after_the_first_start_a_majority_is_enough",
    ),
    "the machine's answer is not read": (
        "log/test_member.py::test_it_answers_with_the_machines_result_and_tells_the_hook",
    ),
    "a time-out is reported as a failure": (
        "coordination/test_node_parts.py::test_a_deadline_with_an_unknown_among_the_answers_is_unknown",
    ),
    "a follower refuses writes": ("log/test_cluster.py::test_any_member_takes_writes_and_all_agree",),
    "one bad command kills the cluster for ever": (
        "machine/test_machine.py::test_any_bytes_give_a_value_and_change_nothing",
    ),
    "no snapshot ever succeeds": ("log/test_snapshot.py::test_it_comes_back_as_it_was",),
    "a snapshot is torn by what is applied meanwhile": (
        "machine/test_machine.py::test_pieces_of_a_snapshot_are_of_its_moment_whatever_changes_meanwhile",
    ),
    "a dead owner's lock is held for ever": (
        "coordination/test_live_locks.py::test_a_lock_ends_by_itself_and_the_waiter_is_given_it",
    ),
    "a heartbeat changes the status": (
        "coordination/test_live_sessions.py::test_a_heartbeat_renews_the_lease_and_leaves_the_status_alone",
    ),
    "two processes under one name replace each other": (
        "coordination/test_live_sessions.py::test_a_live_name_is_refused_without_its_token_and_resumed_with_it",
    ),
    "freed tasks are requeued by nobody, locks of the dead stay": (
        "coordination/test_live_sessions.py::test_failing_a_session_requeues_its_tasks_with_the_retry_counted_and_frees_its_locks",
    ),
    "commands carry no version": ("machine/test_codec.py::test_the_golden_log_replays_to_the_golden_bytes",),
    "the leader is kept when it is lost": (
        "log/test_cluster.py::test_a_member_cut_off_from_the_others_neither_writes_nor_reads",
    ),
    "a second stop fails and files stay open": ("log/test_member.py::test_stopping_answers_everybody",),
    "bad settings become defaults": (
        "house/test_env.py::test_a_wrong_value_is_refused_with_name_value_and_what_is_allowed",
    ),
    "variables are documented and never read": (
        "house/test_env.py::test_every_specified_variable_is_declared",
        "log/test_founding.py::test_without_leave_to_found_an_empty_directory_waits_to_be_added",
        "coordination/test_cluster_discovery.py::test_service_records_name_members_and_their_ports",
    ),
    "restore and compaction are stubs": (
        "coordination/test_cluster_command.py::test_a_backup_restored_into_empty_directories_is_the_same_cluster_again",
        "coordination/test_cluster_members.py::test_every_node_takes_a_snapshot_when_it_is_asked",
    ),
    "peers speak without authentication": (
        "log/test_transport.py::test_another_secret_is_refused_and_counted",
    ),
    "processes judge liveness by clocks of their own": (
        "coordination/test_cluster_time.py::test_wall_clocks_that_jump_by_hours_change_no_deadline",
        "coordination/test_cluster_time.py::test_a_leader_stopped_for_longer_than_a_lease_ends_no_healthy_session",
    ),
    "locks have no fencing token": (
        "coordination/test_live_locks.py::test_release_is_the_holders_alone_and_the_next_token_is_greater",
    ),
    "the cluster of the tests has no network": (
        "log/test_cluster.py::test_killing_leaders_under_traffic_loses_nothing",
        "coordination/test_cluster_faults.py::test_nothing_acknowledged_is_lost_or_doubled_when_leaders_die_or_hang",
    ),
}

NAMED = [
    (words, test) for table in (OF_PYSYNCOBJ, OF_THE_PREDECESSOR) for words in table for test in table[words]
]


@functools.cache
def functions_in(path: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize(("words", "test"), NAMED, ids=lambda value: value.rpartition("::")[2] or None)
def test_what_holds_it_off_exists(words: str, test: str) -> None:
    path, _, name = test.partition("::")
    function, _, case = name.rstrip("]").partition("[")

    assert function in functions_in(path), f"{words}: {test} is gone"
    assert not case or case in (DIRECTED if "history" in function else MUTATIONS), f"{words}: no case {case}"


def test_every_weakness_is_in_the_documentation() -> None:
    documented = (ROOT / "docs" / "consensus.md").read_text()

    assert [words for words in OF_PYSYNCOBJ if words not in documented] == []
