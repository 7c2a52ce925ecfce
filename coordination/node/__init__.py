"""One node: a seat in the log, the machine it drives, its private HTTP interface and its duties."""
