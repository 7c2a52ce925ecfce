"""The HTTP face of coordination: one module a noun. Views parse and translate; services decide."""
