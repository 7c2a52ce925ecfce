"""Management commands of coordination."""
