"""The replicated log: Raft by pysyncobj, with a journal, a transport and snapshots that keep its promises.

Nothing outside this package imports pysyncobj. The package knows no Django, no rules and no rows: it carries
bytes to a machine, in the same order on every member, and says truthfully what became of them.
"""
