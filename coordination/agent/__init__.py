"""The agents' client: one file that needs nothing else of this project."""
