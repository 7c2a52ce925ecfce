"""The replicated state machine: pure rules over commands, events and state.

Nothing in this package reads a clock, draws a random number, does I/O or logs. Time arrives in
`Tick`, chance is drawn from request ids, so every member that applies the same log holds the same bytes.
"""
