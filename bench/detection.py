"""Detection on the simulated class: speed, size of state, alerts a class-hour, struggles found in time, ranking.

Beside the defaults run the thresholds of the reference engine and the rules about clicks alone, on the same lessons;
any word of theirs about the pupil in that time counts as found. The ranking by open episodes is compared with a
ranking by idleness alone on pupils who struggle and keep working.

Prints one JSON line a figure; speeds are medians of the runs, with the lowest and the highest.
Run: python bench/detection.py [--lessons 6] [--runs 3]
"""

import argparse
import json
import statistics
import sys
import time
from datetime import datetime
from pathlib import Path
from uuid import UUID

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from usability.detection import classroom
from usability.detection.classroom import (
    AppHealth,
    ClassroomState,
    Decision,
    EpisodeEscalated,
    EpisodeOpened,
    open_episodes,
)
from usability.detection.kinds import SEVERITY_RANK, AlertSeverity, SignalFamily
from usability.detection.observations import Observation, from_metric
from usability.detection.policy import DEFAULT, REFERENCE, Profile, only
from usability.simulator import KINDS, LESSON_S, ClassSimulator, Struggle

START_MS = 1_760_000_000_000
LESSON_MS = int(LESSON_S * 1000)
PUPILS = [f"pupil-{index:02d}" for index in range(28)]
DELAY_MS = 500  # from the event to its receipt
FOUND_WITHIN_S = 60.0

# When each kind of struggle has become one by its own rule, in seconds from its beginning, and the family that
# should say so. "stuck" has three wrong answers after about 65 s, "wheel" its tenth try after about 150 s.
ONSET_S: dict[str, tuple[float, SignalFamily]] = {
    "stuck": (65.0, SignalFamily.ACCURACY),
    "guessing": (45.0, SignalFamily.GUESSING),
    "wheel": (150.0, SignalFamily.PROGRESS),
    "corrections": (60.0, SignalFamily.TYPING),
    "silent": (123.0, SignalFamily.PAUSE),
    "away": (62.0, SignalFamily.AWAY),
    "hints": (30.0, SignalFamily.GUESSING),
    "pauses": (75.0, SignalFamily.PAUSE),
    "help": (8.0, SignalFamily.HELP),
}
ONLY_CLICKS = only("clicks", "rage_click", "dead_click", "error_click")
# Struggles in which the pupil goes on working: a ranking by idleness does not see them.
QUIET = frozenset({"stuck", "guessing", "wheel", "corrections", "hints"})
TOP = 5  # of a ranking, about what a teacher looks at


def lesson(seed: int, struggles: int) -> tuple[list[Observation], tuple[Struggle, ...]]:
    """A lesson's observations; they begin after the pupils have looked for their seats."""
    simulator = ClassSimulator(PUPILS, seed=seed, start_ms=START_MS, struggles=struggles)
    observations = []
    for index, metric in enumerate(simulator.until(START_MS + LESSON_MS)):
        at_ms = round(datetime.fromisoformat(metric["timestamp"]).timestamp() * 1000)
        observations.append(
            from_metric(
                id=str(UUID(int=index)),
                student_id=metric["student_id"],
                app_name=metric["app_name"],
                metric_type=metric["metric_type"],
                metric_value=metric["metric_value"],
                at_ms=at_ms,
                received_ms=at_ms + DELAY_MS,
                session_id=metric["session_id"],
                metadata=metric["metadata"],
            )
        )
    return observations, simulator.struggles() if struggles else ()


def judged(observations: list[Observation], profile: Profile = DEFAULT) -> list[Decision]:
    return classroom.rebuild("bench", observations, now_ms=START_MS + LESSON_MS, profile=profile)[1]


def report(name: str, value: float, unit: str, **more: object) -> None:
    print(
        json.dumps({"bench": f"detection.{name}", "value": round(value, 3), "unit": unit, **more}), flush=True
    )


def speed(runs: int) -> None:
    observations, _ = lesson(seed=1, struggles=len(KINDS))
    rates = []
    for _ in range(runs):
        begin = time.process_time()
        judged(observations)
        rates.append(len(observations) / (time.process_time() - begin))
    report(
        "observations",
        statistics.median(rates),
        "1/s of CPU time",
        low=round(min(rates)),
        high=round(max(rates)),
        runs=runs,
        observations=len(observations),
    )


def state_size() -> None:
    observations, _ = lesson(seed=1, struggles=len(KINDS))
    sizes = []
    for pupil in PUPILS:
        own = [each for each in observations if each.student_id == pupil]
        state, _ = classroom.rebuild("bench", own, now_ms=START_MS + LESSON_MS)
        sizes.append(len(classroom.encode(state)))
    report("state", statistics.median(sizes), "bytes a pupil, encoded", high=max(sizes))


def above_info(decisions: list[Decision]) -> int:
    return len(
        {
            each.episode.id
            for each in decisions
            if isinstance(each, EpisodeOpened | EpisodeEscalated) and each.alert != AlertSeverity.INFO
        }
    )


def volume(seeds: range) -> None:
    """Alerts of calm lessons a class-hour: above info before the budget, those that interrupt, the reference's."""
    hours = len(seeds) * LESSON_S / 3600
    calm = [lesson(seed, struggles=0)[0] for seed in seeds]
    decisions = [judged(each) for each in calm]
    report("calm_above_info", sum(map(above_info, decisions)) / hours, "1/class-hour", lessons=len(seeds))
    interrupting = sum(getattr(each, "interrupts", False) for told in decisions for each in told)
    report("calm_interrupting", interrupting / hours, "1/class-hour", lessons=len(seeds))
    by_detector: dict[str, int] = {}
    for told in decisions:
        for each in told:
            if isinstance(each, EpisodeOpened):
                name = each.episode.findings[0].detector
                by_detector[name] = by_detector.get(name, 0) + 1
    opened = sum(by_detector.values())
    report("calm_in_the_list", opened / hours, "1/class-hour", lessons=len(seeds), by_detector=by_detector)
    for name, profile in (("reference_thresholds", REFERENCE), ("click_rules", ONLY_CLICKS)):
        above = sum(above_info(judged(each, profile)) for each in calm)
        report(f"calm_above_info_{name}", above / hours, "1/class-hour", lessons=len(seeds))


def found(struggle: Struggle, decisions: list[Decision]) -> float | None:
    """Seconds from the struggle's onset to the first episode of its family; None where there was none."""
    onset_s, family = ONSET_S[struggle.kind]
    times = [
        (each.episode.opened_ms - START_MS) / 1000 - struggle.start_s - onset_s
        for each in decisions
        if isinstance(each, EpisodeOpened)
        and each.episode.student_id == struggle.student_id
        and each.episode.family == family
        and struggle.start_s <= (each.episode.opened_ms - START_MS) / 1000 <= struggle.end_s + FOUND_WITHIN_S
    ]
    return min(times, default=None)


def spoke_in_time(struggle: Struggle, decisions: list[Decision]) -> bool:
    """Whether anything was newly said of the pupil from the beginning of the struggle to 60 s after its onset."""
    until_s = struggle.start_s + ONSET_S[struggle.kind][0] + FOUND_WITHIN_S
    times = [
        (student, at_ms)
        for each in decisions
        for student, at_ms in (
            [(each.episode.student_id, each.episode.opened_ms)]
            if isinstance(each, EpisodeOpened)
            else [(each.student_id, each.signal.at_ms)]
            if isinstance(each, AppHealth)
            else []
        )
    ]
    return any(
        student == struggle.student_id and struggle.start_s <= (at_ms - START_MS) / 1000 <= until_s
        for student, at_ms in times
    )


def recall(seeds: range) -> None:
    """Injected struggles found within 60 s of the onset of their kind, and how long it took."""
    delays: dict[str, list[float | None]] = {kind: [] for kind in KINDS}
    peers = {"reference_thresholds": REFERENCE, "click_rules": ONLY_CLICKS}
    spoke: dict[str, dict[str, int]] = {name: dict.fromkeys(KINDS, 0) for name in peers}
    for seed in seeds:
        observations, struggles = lesson(seed, struggles=len(KINDS))
        decisions = judged(observations)
        for struggle in struggles:
            delays[struggle.kind].append(found(struggle, decisions))
        for name, profile in peers.items():
            theirs = judged(observations, profile)
            for struggle in struggles:
                spoke[name][struggle.kind] += spoke_in_time(struggle, theirs)
    for kind, of_kind in delays.items():
        in_time = [each for each in of_kind if each is not None and each <= FOUND_WITHIN_S]
        report(
            f"recall_{kind}",
            len(in_time) / len(of_kind),
            "share within 60 s",
            injected=len(of_kind),
            found_at_all=sum(each is not None for each in of_kind),
            median_delay_s=round(statistics.median(in_time), 1) if in_time else None,
            **{name: round(counts[kind] / len(of_kind), 3) for name, counts in spoke.items()},
        )


def by_episodes(state: ClassroomState) -> list[str]:
    """Pupils with an open episode, the most severe first, of those the one that has lasted longest."""
    ranked = sorted(
        open_episodes(state), key=lambda each: (-SEVERITY_RANK[each.severity], each.onset_ms, each.id)
    )
    return list(dict.fromkeys(each.student_id for each in ranked))


def by_idleness(state: ClassroomState) -> list[str]:
    """All pupils, the longest idle first."""
    desks = sorted(state.desks.values(), key=lambda desk: desk.student.last_activity_ms)
    return [desk.student.student_id for desk in desks]


def ranking(seeds: range) -> None:
    """Of the minutes in which a pupil struggles and works on, the share with that pupil among the first five."""
    seen = {"episodes": 0, "idleness": 0}
    minutes = 0
    for seed in seeds:
        observations, struggles = lesson(seed, struggles=len(KINDS))
        state = classroom.start("bench")
        for minute in range(1, int(LESSON_S // 60)):
            until_ms = START_MS + minute * 60_000
            since_ms = until_ms - 60_000
            batch = [each for each in observations if since_ms < each.received_ms <= until_ms]
            state, _ = classroom.step(state, batch, now_ms=until_ms)
            quiet = [
                each.student_id
                for each in struggles
                if each.kind in QUIET
                and each.start_s + ONSET_S[each.kind][0] + FOUND_WITHIN_S <= minute * 60 <= each.end_s
            ]
            minutes += len(quiet)
            for name, ranked in (("episodes", by_episodes(state)), ("idleness", by_idleness(state))):
                seen[name] += len(set(quiet) & set(ranked[:TOP]))
    report(
        "quiet_strugglers_in_the_first_five",
        seen["episodes"] / minutes,
        "share of pupil-minutes",
        by_idleness=round(seen["idleness"] / minutes, 3),
        pupil_minutes=minutes,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lessons", type=int, default=6, help="lessons, each with its own seed")
    parser.add_argument("--runs", type=int, default=3, help="runs of the speed measurement")
    options = parser.parse_args()
    speed(options.runs)
    state_size()
    volume(range(100, 100 + options.lessons))
    recall(range(200, 200 + options.lessons))
    ranking(range(200, 200 + options.lessons))


if __name__ == "__main__":
    main()
