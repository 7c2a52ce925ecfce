"""What our overrides were written against, and what must never come back."""

import ast
import hashlib
from pathlib import Path

import pysyncobj.syncobj

from coordination.log.replica import Replica

COORDINATION = Path(__file__).parents[2] / "coordination"
SYNCOBJ_SHA256 = "e8bdf06797085d734df86e24ab4802fe87893dff77268565ec036f7ad4a1cfe4"


def our_names() -> set[str]:
    """Everything the replica defines itself, whatever class of ours it is in."""
    ours = [of for of in Replica.__mro__ if of.__module__.startswith("coordination.")]
    return {name for of in ours for name in vars(of)}


def test_pysyncobj_is_the_source_our_overrides_were_written_against() -> None:
    found = hashlib.sha256(Path(pysyncobj.syncobj.__file__).read_bytes()).hexdigest()

    assert found == SYNCOBJ_SHA256, (
        "reread the handlers in syncobj.py and run the directed histories before repinning"
    )


def test_each_override_has_the_method_it_overrides() -> None:
    overrides = [name for name in our_names() if name.startswith("_SyncObj__")]

    assert len(overrides) >= 4
    assert not [name for name in overrides if not hasattr(pysyncobj.syncobj.SyncObj, name)]


def test_nothing_in_coordination_can_unpickle() -> None:
    forbidden = {"pickle", "cPickle", "_pickle", "dill", "shelve", "marshal", "cloudpickle"}
    found = []
    for path in sorted(COORDINATION.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [f"{path.name}:{node.lineno}" for name in names if name.split(".")[0] in forbidden]

    assert found == []


def test_pysyncobj_cannot_reach_its_pickle_from_a_message_or_an_entry() -> None:
    """Its handlers for entries, snapshots and commands are ours; kinds it would unpickle are applied as nothing."""
    assert {
        "_SyncObj__doApplyCommand",
        "_SyncObj__applyLogEntries",
        "_SyncObj__sendAppendEntries",
    } <= our_names()
    assert {"_SyncObj__tryLogCompaction"} <= our_names()
