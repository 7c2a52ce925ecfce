"""What detection wrote about a stretch of time, and what an undisturbed fold of the same rows comes to.

Run as a program of its own, in the environment of a running system: prints both as JSON.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
import uuid

import django


def written(classroom_id: uuid.UUID, since: dt.datetime, until: dt.datetime) -> dict[str, list[object]]:
    """Of each episode that began in the stretch: whose, what, when; how it ended, if before the stretch's end."""
    from usability.models import FrustrationEvent

    found = FrustrationEvent.objects.filter(
        classroom=classroom_id, detected_at__gte=since, detected_at__lt=until
    )
    return {
        str(event.pk): [
            event.student_id,
            event.event_type,
            event.detected_at.isoformat(),
            *(
                [event.severity, event.ended_at.isoformat()]
                if event.ended_at and event.ended_at < until
                else []
            ),
        ]
        for event in found
    }


def judged(classroom_id: uuid.UUID, since: dt.datetime, until: dt.datetime) -> dict[str, list[object]]:
    """The same from the stored rows alone, in one go."""
    from usability.detection import classroom as room_fold
    from usability.ingest.rows import rows_of_class
    from usability.ingest.stream import observation_of
    from usability.policies import from_ms, room_policies, to_ms

    policy = room_policies([classroom_id], until)[classroom_id]
    rows = rows_of_class(
        classroom_id,
        sorted(policy.roster),
        received_since=since,
        event_since=since - dt.timedelta(minutes=5),
        event_until=until + dt.timedelta(minutes=5),
        limit=10_000_000,
    )
    _, decided = room_fold.rebuild(
        str(classroom_id),
        [observation_of(row) for row in rows],
        now_ms=to_ms(dt.datetime.now(tz=dt.UTC)) - 1_000,
        roster=policy.roster,
        profile=policy.profile,
        app_profiles=policy.app_profiles,
        controls=policy.controls,
    )
    told = (
        room_fold.EpisodeOpened,
        room_fold.EpisodeUpdated,
        room_fold.EpisodeEscalated,
        room_fold.EpisodeClosed,
    )
    last = {one.episode.id: one.episode for one in decided if isinstance(one, told)}
    return {
        str(uuid.UUID(key)): [
            episode.student_id,
            str(episode.family),
            from_ms(episode.onset_ms).isoformat(),
            *(
                [str(episode.severity), from_ms(episode.closed_ms).isoformat()]
                if episode.closed_ms and episode.closed_ms < to_ms(until)
                else []
            ),
        ]
        for key, episode in last.items()
        if to_ms(since) <= episode.onset_ms < to_ms(until)
    }


def main(classroom: str, since: str, until: str) -> None:
    """Both, for a class and a stretch of time (RFC 3339)."""
    django.setup()
    stretch = (uuid.UUID(classroom), dt.datetime.fromisoformat(since), dt.datetime.fromisoformat(until))
    sys.stdout.write(json.dumps({"written": written(*stretch), "judged": judged(*stretch)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
