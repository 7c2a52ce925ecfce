"""Traffic, faults and a checker: whether a cluster keeps its promises is observed from outside, through the API.

`history`, `linearizability`, `promises` and `verdict` are pure: they judge what was recorded and know no cluster.
`traffic`, `network`, `cluster`, `faults` and `run` make that record.
"""
