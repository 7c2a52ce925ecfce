"""Back-test: stored metrics once more through the very fold of production, with other parameters.

`wish` says what is asked and refuses what cannot be; `rows` streams the metrics of a class out of PostgreSQL;
`replay` folds them; `compare` tells two outcomes apart; `run` puts these together over all classes and cores;
`queue` keeps the back-tests an admin has asked for. Nothing here writes an event or an alert.
"""
