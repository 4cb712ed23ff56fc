"""The ratio theorem and the finite-difference proposition for any function f; section 3 of the paper notes."""

from paperlib.theory.gradients import (
    gini,
    hoyer,
    l0,
    l1,
    l2,
    participation_number,
    probabilities,
    true_class_gradient,
)
from paperlib.theory.quotient import SCHEMES, curvature, finite_difference_l1, finite_differences
from paperlib.theory.ratio import (
    LAWS,
    RandomVulnerability,
    adversarial_vulnerability,
    linear_ratio,
    linear_vulnerabilities,
    measured_ratio,
    random_vulnerability,
)
