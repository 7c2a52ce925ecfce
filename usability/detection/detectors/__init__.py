"""One detector a file. A module here has a `DETECTOR`; the registry needs nothing else to know it."""
