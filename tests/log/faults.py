"""Histories drawn from a seed: crashes, power losses, resets, slow directions, partitions, pauses, wiped directories,
snapshots and leader transfers, under constant proposals and reads."""

from coordination.log.contract import Committed, Outcome
from coordination.log.waiting import Waiting
from tests.log.world import World

CHANGES = ("add", "add", "remove", "remove_leader", "add_wiped", "old_configuration")
FAULTS = (
    "kill",
    "kill_leader",
    "reset",
    "slow",
    "partition",
    "oneway",
    "pause",
    "compact",
    "crash_at_write",
    "transfer",
    "wipe",
)


def random_history(world: World, seconds: float = 10.0) -> None:
    tell(world, seconds, FAULTS)


def changing_history(world: World, seconds: float = 12.0) -> None:
    """As the others, while members come and go."""
    tell(world, seconds, FAULTS + CHANGES)


def tell(world: World, seconds: float, faults: tuple[str, ...]) -> None:
    world.until(lambda: world.leader() is not None)
    rng, end = world.rng, world.now + seconds
    while world.now < end:
        world.run(rng.uniform(0.01, 0.15))
        traffic(world)
        if rng.random() < 0.35:
            kind = rng.choice(faults)
            if kind in CHANGES:
                change(world, kind)
            else:
                fault(world, kind)


def traffic(world: World) -> None:
    rng, leader = world.rng, world.leader()
    for name in world.alive():
        if name == leader or rng.random() < 0.2:
            for _ in range(rng.randint(0, 6)):
                world.propose(name)
            if rng.random() < 0.2:
                world.read(name)


def fault(world: World, kind: str) -> None:
    rng, names = world.rng, world.names
    name = rng.choice(names)
    a, b = rng.sample(names, 2)
    others = [other for other in names if other != name]
    if kind == "kill_leader":
        kind, name = "kill", world.leader() or name
    is_up = world.members[name].replica is not None
    if kind == "kill" and is_up:
        kill(world, name)
    elif kind == "reset":
        world.reset(world.connection(a, b))
    elif kind == "slow":
        world.connection(a, b).slow[a] = rng.uniform(0.05, 0.8)
        world.at(world.now + rng.uniform(0.2, 2.0), lambda: world.connection(a, b).slow.__setitem__(a, 0.0))
    elif kind == "partition":
        world.cut(name, *others)
        world.at(world.now + rng.uniform(0.3, 2.5), lambda: world.heal(name, *others))
    elif kind == "oneway":
        world.block(a, b)
        world.at(world.now + rng.uniform(0.3, 2.0), lambda: world.unblock(a, b))
    elif kind == "pause" and is_up:
        world.members[name].is_paused = True
        world.at(world.now + rng.uniform(0.1, 1.2), lambda: setattr(world.members[name], "is_paused", False))
    elif kind == "compact" and is_up:
        world.members[name].live.forceLogCompaction()
    elif kind == "crash_at_write" and is_up:
        world.members[name].disk.crash_in = rng.randint(1, 8)
    elif kind == "transfer" and world.leader():
        transfer(world, name)
    elif kind == "wipe" and rng.random() < 0.5 and may_wipe(world, name):
        world.wipe(name)
        world.at(world.now + rng.uniform(0.1, 1.0), lambda: world.restart(name))


def is_calm(world: World) -> bool:
    """A leader, no change under way, and the directories of all voters are whole: one more loss can be borne."""
    leader = world.leader()
    if leader is None:
        return False
    replica = world.members[leader].live
    return replica.members.index <= replica.raftCommitIndex and all(
        world.is_whole(voter) for voter in replica.members.voters
    )


def may_wipe(world: World, name: str) -> bool:
    """Directories of fewer than a majority of the voters may be gone at once, while no change is under way."""
    leader = world.leader()
    if leader is None:
        return False
    replica, voters = world.members[leader].live, world.seated().voters
    gone = {voter for voter in voters if not world.is_whole(voter)} | ({name} & voters)
    return replica.members.index <= replica.raftCommitIndex and len(gone) <= (len(voters) - 1) // 2


def change(world: World, kind: str) -> None:
    rng, leader = world.rng, world.leader()
    if leader is None or not is_calm(world):
        return
    seated = world.seated()
    outside = [name for name in world.members if seated.find(name) is None]
    if kind in ("add", "add_wiped") and outside and len(seated.seats) < 6:
        name = rng.choice(outside)
        if kind == "add_wiped" and name in world.names:
            world.wipe(name)
        told_of = rng.sample(world.names, rng.randint(1, len(world.names)))
        world.at(
            world.now + rng.uniform(0.0, 0.6),
            lambda: world.join(name, told_of=[other for other in told_of if other != name]),
        )
        world.change("add", name)
    elif kind == "remove" and len(seated.voters) > 2:
        world.change("remove", rng.choice([seat.id for seat in seated.seats]))
    elif kind == "remove_leader" and len(seated.voters) > 2:
        world.change("remove", leader)
    elif kind == "old_configuration":
        # It comes back with the list of those that began, or of all that ever were.
        name = rng.choice(world.names)
        world.members[name].founders = list(rng.choice([world.names, world.names[:3]]))
        world.kill(name)
        world.at(world.now + rng.uniform(0.1, 0.5), lambda: world.restart(name))


def kill(world: World, name: str) -> None:
    rng = world.rng
    down = len(world.names) - len(world.alive())
    is_minority = down < (len(world.names) - 1) // 2
    if is_minority or rng.random() < 0.3:
        world.kill(name, power=rng.random() < 0.6)
        world.at(world.now + rng.uniform(0.1, 2.0), lambda: world.restart(name))


def transfer(world: World, target: str) -> None:
    leader = world.leader()
    if leader is not None and leader != target:
        waiting = Waiting(lambda outcome: None, world.now + 4.0, is_read=True)
        world.waiting.append(waiting)
        world.members[leader].live.transfer(target, waiting)


def is_committed(outcomes: list[Outcome]) -> bool:
    return bool(outcomes) and isinstance(outcomes[0], Committed)
