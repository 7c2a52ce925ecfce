"""A member as a process of its own, for tests: one JSON request a line on stdin, one JSON answer a line on stdout.

{"id": 1, "op": "propose", "payload": "x"}   → {"id": 1, "outcome": "Committed", "value": 1}
{"id": 2, "op": "read"} · {"id": 3, "op": "transfer", "to": "n2"} · {"id": 4, "op": "status"} · {"id": 5, "op": "items"}
"""

import json
import os
import sys
import threading
from dataclasses import asdict
from pathlib import Path

from coordination.log.contract import Committed, MemberSettings, Outcome, Peer
from coordination.log.raft import Member
from tests.log.machines import Items

_lock = threading.Lock()


def say(answer: dict[str, object]) -> None:
    with _lock:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def answering(request: dict[str, object]):
    def answer(outcome: Outcome) -> None:
        value = outcome.result if isinstance(outcome, Committed) else outcome.reason
        say({"id": request["id"], "outcome": type(outcome).__name__, "value": value})

    return answer


def main() -> None:
    options = json.loads(sys.argv[1])
    peers = tuple(Peer(*peer) for peer in options.pop("peers"))
    machine = Items()
    settings = MemberSettings(peers=peers, data_dir=Path(options.pop("data_dir")), **options)
    member = Member(settings, machine, on_stopped=lambda error: os._exit(3) if error else None)
    member.start()
    say({"id": 0, "started": True})
    for line in sys.stdin:
        request = json.loads(line)
        if request["op"] == "propose":
            member.propose(request["payload"].encode(), answering(request))
        elif request["op"] == "read":
            member.read_index(answering(request))
        elif request["op"] == "transfer":
            member.transfer(request["to"], answering(request))
        elif request["op"] == "status":
            say({"id": request["id"], **asdict(member.status())})
        else:
            say({"id": request["id"], "items": [item.decode() for item in machine.items]})
    member.stop()


if __name__ == "__main__":
    main()
