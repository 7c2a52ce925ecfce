"""The weights of the wheel-spinning score to begin with, written by `python -m bench.fit_wheel_spin`; do not edit.

Fitted on attempts of 4,150 pupils of ASSISTments 2009-2010 (Feng, Heffernan, Koedinger 2009), of which nothing
else is kept here. Weights are of features less `CENTRES`; `SPREAD` is the covariance of how far they may be off.
"""

NAMES = ("one", "no_mastery", "tries", "skill", "run", "firsts", "lately", "stuck")
CENTRES = (0.000, -0.058, -0.587, -0.006, 0.894, 0.005, -0.085, -0.031)
WEIGHTS = (-1.053, 0.645, 0.245, 0.412, -0.325, -0.182, -1.563, 0.038)
SPREAD = (
    (5.000e-01, 0.000e00, 0.000e00, 0.000e00, 0.000e00, 0.000e00, 0.000e00, 0.000e00),
    (0.000e00, 6.610e-03, -1.935e-03, -4.016e-03, 5.593e-03, 1.819e-03, 1.373e-02, 2.167e-03),
    (0.000e00, -1.935e-03, 1.351e-03, 1.065e-03, -1.956e-03, -6.732e-04, -3.096e-03, -5.213e-04),
    (0.000e00, -4.016e-03, 1.065e-03, 3.134e-02, -2.704e-03, -1.499e-03, -1.416e-02, -3.898e-02),
    (0.000e00, 5.593e-03, -1.956e-03, -2.704e-03, 8.195e-03, 2.364e-03, 3.616e-03, 1.389e-03),
    (0.000e00, 1.819e-03, -6.732e-04, -1.499e-03, 2.364e-03, 5.573e-03, -3.815e-03, 1.131e-03),
    (0.000e00, 1.373e-02, -3.096e-03, -1.416e-02, 3.616e-03, -3.815e-03, 1.009e-01, 7.689e-03),
    (0.000e00, 2.167e-03, -5.213e-04, -3.898e-02, 1.389e-03, 1.131e-03, 7.689e-03, 5.598e-02),
)
