"""The demonstration: people, a class and keys, real agents on real errands, and a class that is simulated and says so."""
