"""Watches how learners get on in education apps and tells their teachers who needs help."""
