"""The weights of the wheel-spinning score, written by `python -m bench.fit_wheel_spin`; do not edit.

Fitted on attempts of 4,150 pupils of ASSISTments 2009-2010 (Feng, Heffernan, Koedinger 2009), of which nothing
else is kept here.
"""

NAMES = ("one", "no_mastery", "tries", "skill", "run", "firsts", "lately")
WEIGHTS = (-0.709, 0.643, 0.245, 0.439, -0.327, -0.183, -1.569)
