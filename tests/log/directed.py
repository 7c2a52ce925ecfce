"""Histories told step by step: what chance rarely or never meets. Each names the way in which it would lose commands."""

import contextlib
from collections.abc import Callable

from coordination.log import wire
from coordination.log.contract import JOINING, REMOVED, Committed
from coordination.log.replica import Replica
from tests.log.world import TICK_S, PowerLost, World

HELD_S = 1000.0


def begin(world: World) -> None:
    """All members have met, and whoever leads has been obeyed. Cut-off leaders go on believing: that is another story."""
    world.until(lambda: world.leader() is not None and all(map(world.is_whole, world.names)))
    world.run(0.5)
    for name in world.names:
        world.members[name].live.conf.leaderFallbackTimeout = HELD_S


def elect(world: World, wanted: str, settle: float = 0.5, silent: tuple[str, ...] = ()) -> None:
    """Make `wanted` the leader of a new term. `silent`: whom it must not reach once it leads."""
    replica = world.members[wanted].live
    replica.conf.leaderFallbackTimeout = HELD_S
    for attempt in range(200):
        if replica._isLeader():
            break
        hold(world, *(name for name in world.alive() if name != wanted))
        if attempt % 8 == 0:
            campaign(world, wanted)
        world.run(TICK_S)
    assert replica._isLeader(), f"{wanted} could not be elected"
    world.block(wanted, *silent)
    world.run(settle)


def campaign(world: World, name: str) -> None:
    """This one asks for votes with its next step, and nobody refuses because the leader is alive."""
    replica = world.members[name].live
    replica._transferring = replica.stands_by_transfer = True
    replica._campaign()


def hold(world: World, *names: str) -> None:
    """These do not stand for election by themselves."""
    for name in names:
        world.members[name].live._deadline = world.now + HELD_S


def stand(world: World, *names: str) -> None:
    """These ask for votes with their next step."""
    for name in names:
        replica = world.members[name].live
        replica._heard = -HELD_S
        replica._deadline = -HELD_S


def propose(world: World, name: str, count: int) -> None:
    for _ in range(count):
        world.propose(name)


def step(world: World, *names: str) -> None:
    world.now += 0.001
    for name in names:
        world.step(name)


def messages(world: World, source: str, target: str) -> list[wire.Message]:
    return [wire.decode(frame).message for frame in world.pending(source, target)]


def compaction_window(world: World) -> None:
    """A follower's power goes between its snapshot and the cut of its journal; what lies behind must survive."""
    begin(world)
    elect(world, "n1")
    world.cut("n3", "n1", "n2")
    propose(world, "n1", 10)
    world.until(lambda: len(world.acked) == 10)
    world.run(0.3)
    propose(world, "n1", 10)  # acknowledged below, while n2 does not hear that they are committed
    world.run(TICK_S)
    world.run(TICK_S)
    world.block("n1", "n2")
    world.until(lambda: len(world.acked) == 20)
    world.members["n2"].live.forceLogCompaction()
    world.members["n2"].disk.crash_in = 3  # the members, the snapshot, then the journal
    step(world, "n2")
    world.kill("n2")
    world.kill("n1")
    world.start("n2")
    world.heal("n3", "n1", "n2")
    world.run(4.0)
    world.restart("n1")


def stale_acknowledgement(world: World) -> None:
    """Five members. An answer of an old term, long on its way, reaches the same leader, elected again."""
    old, follower, rest = "n1", "n5", ("n2", "n3", "n4")
    begin(world)
    elect(world, old)
    world.block(old, *rest)
    world.block(follower, old)
    propose(world, old, 8)
    world.run(0.2)  # n5 has eight entries more than the rest; its answers wait
    world.cut(old, *rest)
    elect(world, "n2")
    world.run(0.5)  # n5's tail is replaced
    world.heal(old, *rest)
    world.run(0.5)  # and the old leader's
    world.block("n2", old)
    world.block(old, follower)
    elect(world, old, 0.0)
    world.cut(old, "n3", "n2")
    world.run(0.05)
    propose(world, old, 5)
    world.run(0.1)  # only n4 has them
    world.release(follower, old)
    world.run(0.1)
    world.kill(old)
    world.kill("n4")
    world.heal("n2", "n3", follower)
    world.heal("n3", follower)
    stand(world, "n2", "n3", follower)
    world.run(4.0)
    world.restart(old)
    world.restart("n4")


def repeated_resend(world: World) -> None:
    """Refusals of several probes make the leader send again what was answered; a follower must not cut for that."""
    begin(world)
    elect(world, "n1")
    world.cut("n1", "n2", "n3")
    propose(world, "n1", 20)
    world.run(0.1)
    world.kill("n1")
    world.start("n1")
    hold(world, *world.names)
    world.run(0.4)
    world.cut("n3", "n2")
    world.heal("n1", "n2")
    world.run(0.1)
    elect(world, "n1", 0.0)
    world.cut("n1", "n2")
    propose(world, "n1", 20)
    world.run(0.3)  # each heartbeat probes at the leader's end; the follower has none of it
    hold(world, "n2", "n3")
    world.release("n1", "n2")
    step(world, "n2")
    world.release("n2", "n1", 1)  # the first refusal
    world.run(0.05)
    world.release("n1", "n2")  # everything arrives and is answered
    step(world, "n2")
    world.release("n2", "n1", 1)  # the second refusal
    world.run(0.05)
    world.release("n1", "n2", 1)  # the first of what is repeated
    step(world, "n2")
    world.release("n2", "n1")
    world.run(0.1)
    world.kill("n1")
    world.heal("n3", "n2")
    stand(world, "n2", "n3")
    world.run(4.0)
    world.heal("n1", "n2", "n3")
    world.restart("n1")


def answer_rolls_back(world: World) -> None:
    """An early answer must not turn the leader back to what is already on its way, nor the repetition cut anything."""
    begin(world)
    elect(world, "n1")
    world.cut("n3", "n1", "n2")
    world.run(0.1)
    world.cut("n1", "n2")
    hold(world, "n2", "n3")
    world.release("n1", "n2")
    world.release("n2", "n1")
    for count in (2, 20):
        propose(world, "n1", count)
        world.run(0.06)
        world.release("n1", "n2")
        step(world, "n2")
    world.release("n2", "n1", 1)
    world.run(0.06)
    world.release("n1", "n2", 1)
    step(world, "n2")
    world.release("n2", "n1")
    world.run(0.1)
    world.kill("n1")
    world.heal("n3", "n2")
    stand(world, "n2", "n3")
    world.run(4.0)
    world.heal("n1", "n2", "n3")
    world.restart("n1")


def chunk_commits(world: World) -> None:
    """A returning old leader must not take a snapshot's commit index for its own unmatched tail."""
    begin(world)
    elect(world, "n1")
    world.cut("n1", "n2", "n3")
    propose(world, "n1", 6)
    world.run(0.1)
    elect(world, "n2")
    for _ in range(6):
        propose(world, "n2", 10)
        world.run(0.2)
    world.members["n2"].live.forceLogCompaction()
    world.run(0.3)
    world.reset(world.connection("n1", "n2"))
    world.block("n2", "n1")
    world.unblock("n1", "n2")
    world.heal("n1", "n3")
    world.run(0.4)
    for _ in range(300):  # the new leader's messages one by one, up to the first piece of its snapshot
        waiting = messages(world, "n2", "n1")
        if waiting and isinstance(waiting[0], wire.SnapshotChunk):
            break
        world.release("n2", "n1", 1)
        world.run(0.01)
    world.release("n2", "n1", 1)
    world.run(0.02)
    world.unblock("n2", "n1")
    world.run(3.0)


def older_term_entry(world: World) -> None:
    """Five members, figure 8 of the Raft paper: an entry of an older term is not committed by counting its copies."""
    begin(world)
    elect(world, "n1")
    world.block("n1", "n3", "n4", "n5")
    propose(world, "n1", 6)  # reach n2 alone
    world.run(0.15)
    world.kill("n1")
    world.cut("n2", "n3", "n4", "n5")
    elect(world, "n5", 0.1, silent=("n3", "n4"))  # one entry of its own, on n5 alone
    world.kill("n5")
    world.start("n1")
    world.heal("n2", "n3")
    world.heal("n1", "n3")
    world.members["n4"].is_paused = True
    world.run(0.3)
    elect(world, "n1", 0.1, silent=("n3",))  # its six entries are of an older term now
    for _ in range(60):  # to n3: what probes, and the first of the old entries, not the new term's
        waiting = messages(world, "n1", "n3")
        world.release("n1", "n3", 1)
        step(world, "n3")
        if waiting and isinstance(waiting[0], wire.AppendEntries) and len(waiting[0].entries) > 1:
            break
        hold(world, "n2", "n3")
        world.run(0.03)
    world.run(0.1)
    world.kill("n1")
    world.kill("n2")
    world.members["n4"].is_paused = False
    world.start("n5")
    world.heal("n5", "n3", "n4")
    hold(world, "n3", "n4")
    stand(world, "n5")
    world.run(3.0)
    world.restart("n1")
    world.restart("n2")


def second_vote(world: World) -> None:
    """A member that restarts must not vote again in a term in which it has voted."""
    begin(world)
    elect(world, "n1")
    world.cut("n3", "n1", "n2")
    hold(world, "n2", "n3")
    elect(world, "n2", 0.05, silent=("n1",))  # with n1's vote
    world.cut("n2", "n1")
    world.kill("n1")
    world.start("n1")
    hold(world, "n1")
    world.run(0.3)
    world.heal("n3", "n1")
    campaign(world, "n3")
    world.run(0.1)  # n3 asks for n1's vote in the same term
    hold(world, "n1", "n3")
    propose(world, "n2", 5)
    propose(world, "n3", 5)
    world.run(0.5)
    world.heal("n2", "n1", "n3")
    world.heal("n3", "n2")
    world.run(3.0)


def power_lost_after_answer(world: World) -> None:
    """A follower must not answer before its disk has the entries."""
    begin(world)
    elect(world, "n1")
    world.cut("n3", "n1", "n2")
    propose(world, "n1", 20)
    step(world, "n1")
    world.now += 0.02
    world.members["n2"].disk.crash_in = 1
    follower = world.members["n2"].live
    world._read("n2")
    answers = _answers_of_a_crash(world, follower)
    for frame in answers:
        world.members["n1"].live.frame("n2", frame)
    step(world, "n1")
    step(world, "n1")
    world.kill("n1")
    world.kill("n2", power=True)
    world.start("n2")
    world.heal("n3", "n1", "n2")
    stand(world, "n2", "n3")
    world.run(3.0)
    world.restart("n1")


def _answers_of_a_crash(world: World, follower: Replica) -> list[bytes]:
    """What the follower had said when its power went: it is on its way and arrives."""
    pipe = world.connection("n1", "n2").pipe["n2"]
    before = len(pipe)
    with contextlib.suppress(PowerLost):
        follower.step()
    return [frame for _, _, frame in pipe[before:]]


def leader_counts_itself(world: World) -> None:
    """A leader whose entries left before its own sync must not count itself for them if its power goes."""
    begin(world)
    elect(world, "n1")
    world.run(0.2)
    propose(world, "n1", 10)
    world.members["n1"].disk.crash_in = 1
    step(world, "n1")
    world.run(3.0)
    world.restart("n1")
    world.run(2.0)


def wiped_member_votes(world: World) -> None:
    """A wiped directory has forgotten what it acknowledged: its vote for one without it would lose that."""
    begin(world)
    elect(world, "n1")
    world.cut("n3", "n1", "n2")
    propose(world, "n1", 10)
    world.until(lambda: len(world.acked) == 10)
    world.wipe("n2")
    world.kill("n1")
    world.heal("n3", "n2")
    world.start("n2")
    world.run(0.4)
    stand(world, "n2", "n3")
    world.run(3.0)
    world.heal("n1", "n2", "n3")
    world.restart("n1")
    world.run(3.0)


def two_wiped_at_once(world: World) -> None:
    """Five members, of which two have forgotten: neither may wait until the other has confirmed anything."""
    begin(world)
    elect(world, "n1")
    propose(world, "n1", 10)
    world.until(lambda: len(world.acked) == 10)
    for name in ("n4", "n5"):
        world.wipe(name)
    for name in ("n4", "n5"):
        world.start(name)
    world.until(lambda: world.is_whole("n4") and world.is_whole("n5"))
    world.kill("n2")
    world.kill("n3", power=True)
    propose(world, "n1", 5)
    world.until(lambda: len(world.acked) == 15)  # with the two
    world.restart("n2")
    world.restart("n3")


def wiped_majority(world: World) -> None:
    """Five members. Three that decided something without the leader have forgotten it: they are not taken for new
    ones, and what was acknowledged is there again with their directories.
    """
    begin(world)
    elect(world, "n1")
    lost = ("n3", "n4", "n5")
    for name in lost:
        world.cut(name, "n1", "n2")
    elect(world, "n3")
    propose(world, "n3", 5)
    world.until(lambda: len(world.acked) == 5)
    directories = {name: dict(world.members[name].disk.files) for name in lost}
    for name in lost:
        world.wipe(name)
        world.start(name)
        world.heal(name, "n1", "n2")
    propose(world, "n1", 5)
    world.run(5.0)
    assert not any(map(world.is_whole, lost)), "those that lost what was acknowledged were admitted"
    for name in lost:
        world.kill(name)
        world.members[name].disk.files = directories[name]
        world.start(name)


def elected_and_wiped(world: World) -> None:
    """Five members. One is elected with a vote that is forgotten meanwhile, and then forgets it as well. Who has
    confirmed the old leader before that has confirmed nothing: its vote is in the new term.
    """
    begin(world)
    elect(world, "n1")
    world.cut("n4", "n1", "n2", "n3")
    world.cut("n5", "n1", "n2", "n3")
    world.run(0.2)
    hold(world, *world.names)
    campaign(world, "n4")  # the next term, with its own vote and n5's
    world.run(0.2)
    world.wipe("n5")
    world.cut("n5", "n4")
    world.heal("n5", "n1")
    world.start("n5")
    world.until(lambda: world.members["n5"].live.role == JOINING)
    world.run(0.2)  # n2 and n3 confirm n1
    world.cut("n2", "n1", "n3")
    world.heal("n4", "n2")  # n2's is the third vote
    world.until(world.members["n4"].live._isLeader)
    world.run(0.2)
    world.wipe("n4")
    world.heal("n4", "n1")
    world.start("n4")
    world.run(2.0)
    assert not world.is_whole("n5"), "its vote in the newer term is forgotten, and counts there"
    hold(world, *world.names)
    campaign(world, "n1")
    world.run(1.0)
    world.heal("n2", "n1", "n3")
    world.heal("n4", "n2", "n3", "n5")
    world.heal("n5", "n2", "n3")
    stand(world, "n1", "n2", "n3")


def deposed_leader_reads(world: World) -> None:
    """A leader that others have replaced must not answer reads from what it still believes."""
    begin(world)
    elect(world, "n1")
    world.cut("n1", "n2", "n3")
    elect(world, "n2")
    propose(world, "n2", 5)
    world.until(lambda: len(world.acked) == 5)
    outcomes = world.read("n1")
    world.run(0.5)
    assert not any(isinstance(outcome, Committed) for outcome in outcomes)
    world.heal("n1", "n2", "n3")
    world.run(1.0)


def replaced_entry(world: World) -> None:
    """Five members. A payload forwarded to a leader that dies: another leader's entry takes its place in the log."""
    begin(world)
    elect(world, "n1")
    world.cut("n1", "n3", "n4", "n5")
    forwarded = world.propose("n2")
    world.run(0.1)
    world.kill("n1")
    world.cut("n2", "n3", "n4", "n5")
    elect(world, "n3")
    propose(world, "n3", 5)
    world.until(lambda: len(world.acked) == 5)
    world.heal("n2", "n3", "n4", "n5")
    world.run(1.0)
    assert forwarded in world.not_applied
    world.restart("n1")


# ---- members that come and go


def change(world: World, action: str, name: str) -> None:
    """Have it done by whoever leads, a leader's own removal by its successor."""

    def is_done() -> bool:
        outcomes = world.change(action, name)
        world.run(0.1)
        return bool(outcomes) and isinstance(outcomes[0], Committed)

    world.until(is_done)


def joined(world: World, *names: str) -> None:
    """These are added, brought up to date and vote."""
    for name in names:
        world.join(name, told_of=["n1"])
        change(world, "add", name)
        world.until(lambda name=name: name in world.seated().voters)
        world.until(lambda name=name: world.is_whole(name))


def member_added_during_partition(world: World) -> None:
    """One member is away while another is added and the leader dies: it must count by the new members when it is back."""
    begin(world)
    elect(world, "n1")
    world.cut("n3", "n1", "n2")
    world.join("n4", told_of=["n2"])
    change(world, "add", "n4")
    world.until(lambda: "n4" in world.seated().voters)
    propose(world, "n1", 10)
    world.until(lambda: len(world.acked) == 10)
    world.kill("n1")
    world.run(0.5)
    world.heal("n3", "n1", "n2", "n4")
    world.until(lambda: world.leader() is not None)
    propose(world, world.leader() or "", 5)
    world.until(lambda: len(world.acked) == 15)
    world.restart("n1")


def leader_removed(world: World) -> None:
    """A leader that shall go hands over, and its successor sends it away; nothing acknowledged goes with it."""
    begin(world)
    elect(world, "n1")
    propose(world, "n1", 10)
    world.until(lambda: len(world.acked) == 10)
    change(world, "remove", "n1")
    assert world.leader() != "n1"
    world.until(lambda: world.members["n1"].live.role == REMOVED)
    propose(world, world.leader() or "", 5)
    world.until(lambda: len(world.acked) == 15)


def two_changes_raced(world: World) -> None:
    """Four members. A change of an old leader, known to few, and one of the new leader: their majorities could miss
    each other. So a leader changes nothing before an entry of its own is committed.
    """
    begin(world)
    elect(world, "n1")
    change(world, "add", "n5")
    world.run(0.5)
    world.block("n1", "n2", "n3", "n4")
    world.join("n5", told_of=["n1"])
    world.until(lambda: "n5" in world.members["n5"].live.members.voters)  # it and n1 alone know that it votes
    world.cut("n1", "n2", "n3", "n4")
    world.cut("n5", "n2", "n3", "n4")
    elect(world, "n2", 0.0, silent=("n4",))
    world.change("remove", "n1")
    propose(world, "n2", 5)
    world.run(0.5)
    world.cut("n2", "n3", "n4", "n1", "n5")
    world.cut("n3", "n4", "n1", "n5")
    world.kill("n1")
    world.start("n1")
    world.heal("n4", "n1", "n5")
    world.run(0.5)
    elect(world, "n1")
    propose(world, "n1", 5)
    world.run(1.0)


def changes_at_once(world: World) -> None:
    """Five members. Three removals in a row, none committed, would leave two members that decide alone."""
    begin(world)
    elect(world, "n1")
    for name in ("n1", "n2"):
        world.cut(name, "n3", "n4", "n5")
    for name in ("n3", "n4", "n5"):
        world.change("remove", name)
    propose(world, "n1", 5)
    world.run(0.5)
    elect(world, "n3")
    propose(world, "n3", 5)
    world.run(0.5)
    for name in ("n1", "n2"):
        world.heal(name, "n3", "n4", "n5")
    world.run(1.0)


def learners_alone(world: World) -> None:
    """Two learners and a leader cut off from the other voters: they are no majority."""
    begin(world)
    elect(world, "n1")
    for name in ("n4", "n5"):
        change(world, "add", name)
    world.run(0.3)
    world.cut("n1", "n2", "n3")
    for name in ("n4", "n5"):
        world.join(name, told_of=["n1"])
        world.cut(name, "n2", "n3")
    world.run(0.7)
    propose(world, "n1", 5)
    world.run(0.7)
    assert not world.acked, "learners made a majority"
    for name in ("n1", "n4", "n5"):
        world.kill(name)
    elect(world, "n2")
    propose(world, "n2", 5)
    world.run(0.5)
    for name in ("n1", "n4", "n5"):
        world.restart(name)
        world.heal(name, "n2", "n3")
    world.run(1.0)


def grown_then_restarted(world: World) -> None:
    """Three became five. Two founders that restart with the first configuration are no majority any more."""
    begin(world)
    elect(world, "n1")
    joined(world, "n4", "n5")
    world.run(0.5)
    for name in ("n2", "n3"):
        world.kill(name)
        world.cut(name, "n1", "n4", "n5")
        world.start(name)
    stand(world, "n2", "n3")
    world.run(2.0)
    for name in ("n2", "n3"):
        if world.members[name].live._isLeader():
            propose(world, name, 5)
    propose(world, "n1", 5)
    world.run(1.0)
    for name in ("n2", "n3"):
        world.heal(name, "n1", "n4", "n5")
    world.run(1.0)


def members_in_a_snapshot(world: World) -> None:
    """What the journal said about the members outlives it."""
    begin(world)
    elect(world, "n1")
    joined(world, "n4")
    for _ in range(4):
        propose(world, "n1", 20)
        world.run(0.5)
    for name in world.names:
        world.members[name].live.forceLogCompaction()
    world.run(0.3)
    for name in world.names:
        world.kill(name, power=True)
    for name in world.names:
        world.start(name)


def removed_member_campaigns(world: World) -> None:
    """It was away when it was removed, and asks for votes when it is back: nobody listens, and it is told."""
    begin(world)
    elect(world, "n1")
    world.cut("n3", "n1", "n2")
    change(world, "remove", "n3")
    world.run(0.5)
    term = world.members["n1"].live.raftCurrentTerm
    campaign(world, "n3")
    world.run(0.3)
    for _ in range(3):
        campaign(world, "n3")
        world.run(0.05)
    world.heal("n3", "n1", "n2")
    campaign(world, "n3")
    world.run(1.0)
    assert world.leader() == "n1", "the leader was disturbed"
    assert world.members["n1"].live.raftCurrentTerm == term, "the term was raised from outside"
    world.kill("n3")
    world.restart("n3")
    world.until(lambda: world.members["n3"].live.role == REMOVED)


def replaced_member(world: World) -> None:
    """A disk is lost for good: its member is removed, and an empty directory takes the seat under the same name."""
    begin(world)
    elect(world, "n1")
    propose(world, "n1", 10)
    world.until(lambda: len(world.acked) == 10)
    world.wipe("n3")
    change(world, "remove", "n3")
    world.join("n3", told_of=["n1", "n2"])
    world.run(0.5)
    assert world.members["n3"].live.role == JOINING
    joined(world, "n3")
    world.kill("n2")
    propose(world, "n1", 5)
    world.until(lambda: len(world.acked) == 15)  # the new one is needed for it
    world.restart("n2")


def promoted_unheard(world: World) -> None:
    """One becomes two, and the leader falls before the second has heard that it votes: the first needs its vote now."""
    begin(world)
    change(world, "add", "n2")
    world.join("n2", told_of=["n1"])
    first, second = world.members["n1"], world.members["n2"]
    world.until(lambda: second.live.journal.last_index == first.live.journal.last_index)
    world.block("n1", "n2")
    world.until(lambda: "n2" in first.live.members.voters)
    world.kill("n1")
    world.start("n1")
    world.unblock("n1", "n2")
    assert "n2" not in second.live.members.voters


DIRECTED: dict[str, tuple[Callable[[World], None], int]] = {
    "compaction_window": (compaction_window, 3),
    "stale_acknowledgement": (stale_acknowledgement, 5),
    "repeated_resend": (repeated_resend, 3),
    "answer_rolls_back": (answer_rolls_back, 3),
    "chunk_commits": (chunk_commits, 3),
    "older_term_entry": (older_term_entry, 5),
    "second_vote": (second_vote, 3),
    "power_lost_after_answer": (power_lost_after_answer, 3),
    "leader_counts_itself": (leader_counts_itself, 3),
    "wiped_member_votes": (wiped_member_votes, 3),
    "two_wiped_at_once": (two_wiped_at_once, 5),
    "wiped_majority": (wiped_majority, 5),
    "elected_and_wiped": (elected_and_wiped, 5),
    "deposed_leader_reads": (deposed_leader_reads, 3),
    "replaced_entry": (replaced_entry, 5),
    "member_added_during_partition": (member_added_during_partition, 3),
    "leader_removed": (leader_removed, 3),
    "two_changes_raced": (two_changes_raced, 4),
    "changes_at_once": (changes_at_once, 5),
    "learners_alone": (learners_alone, 3),
    "grown_then_restarted": (grown_then_restarted, 3),
    "members_in_a_snapshot": (members_in_a_snapshot, 3),
    "removed_member_campaigns": (removed_member_campaigns, 3),
    "replaced_member": (replaced_member, 3),
    "promoted_unheard": (promoted_unheard, 1),
}


def play(name: str) -> World:
    """Tell one history and judge it."""
    history, size = DIRECTED[name]
    with World(1, size, quiet=True, retain=1, batch_bytes=12) as world:
        history(world)
        world.judge()
        return world
