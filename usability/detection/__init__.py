"""Detection: a pure fold from observations to what a teacher should see.

Nothing in here reads a clock, draws a random number, does I/O or logs. A worker uses five things:

    from usability.detection.observations import from_metric      # stored metric -> Observation
    from usability.detection.policy import Profile, from_dict, to_dict, errors_of
    from usability.detection.classroom import ClassroomState, Controls, start, step, rebuild, encode, decode

    state = start("classroom-id")
    state, decisions = step(
        state,
        observations,        # what arrived, in any order; all of this classroom's students
        now_ms=now_ms,       # the worker's clock in unix ms; with a backlog: received_ms of the last entry read
        roster=frozenset(),  # ids of the students enrolled (for the share in class_stuck)
        profile=Profile(),   # the classroom's; app_profiles={app: Profile} for apps with their own
        controls=Controls(), # class pause, snoozes, utc offset for quiet hours
    )

`step` may be called with no observations, only to let time pass (call it every 250 ms). Decisions, in order:

    EpisodeOpened(episode, alert, interrupts, held_back)     -> insert event + alert
    EpisodeUpdated(episode, alert, interrupts, held_back)    -> new words or evidence, same severity
    EpisodeEscalated(episode, alert, interrupts, held_back)  -> higher severity
    EpisodeClosed(episode)                                   -> ended at episode.closed_ms, by "evidence" or "left"
    Recovered(student_id, app_name, at_ms, reason, evidence) -> a positive card, never interrupts
    AppHealth(student_id, app_name, signal)                  -> about the app, no alert
    ClassStuckOpened(card, interrupts, held_back) / ClassStuckUpdated(card) / ClassStuckClosed(card, at_ms)

`episode.id` is a UUID made from student, app, family and onset, so writing a decision twice is a no-op by
unique key; `episode.revision` counts its decisions from 1. `interrupts=False` means: stays in the ranked list,
`held_back` says why ("info", "budget", "quiet_hours", "snoozed", "paused", "class_card",
"already_told", "comparison", "" where it interrupts).

One more detector is one more file in `detectors/`: the registry, profiles and families need no change.

State is a function of the observations and the clock alone: `rebuild(observations, now_ms=...)` gives the
state of the undisturbed fold, in whatever steps that fold was taken.
"""
