"""PostgreSQL and Redis from the binaries inside two Python wheels, for laptops, tests and demonstrations.

Only the binaries are used. The wheels' own Python interfaces create accounts, change rights of folders above
the data, and leave servers behind; here a server is an ordinary child process on a Unix socket of its own.
"""
