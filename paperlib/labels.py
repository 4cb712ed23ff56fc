"""Labels by which code selects rows.  What readers see in their place is in `words`.

A row names its attack by the labels of `ATTACK`: {"attack": "pgd", "steps": 20, "rule": "sigmoid", "slope": 4.0}.
"""

CLEAN = "clean"  # no perturbation
WORST = "worst"  # everything that a notebook attacks with, together
SO_FAR = "so far"  # a rung of the ladder: everything up to it, which `up_to` names
FOUR, WIDTHS = "four", "widths"  # sets of backward rules, under the label `rules`
RANDOM_FLIPS = "random_flips"  # the law by which whole events are changed at random
OWN_LOOP = "overwritten_eot"  # PGD whose loop draws often and keeps the last draw

ATTACK = (  # the labels that name an attack, in the order of its title
    *("attack", "up_to", "loss", "steps", "queries", "draws", "restarts", "eot", "norm"),
    *("rule", "slope", "gamma", "a", "made_on", "made_on_network", "rules"),
)
REFERENCE = "reference_"  # before the labels of a second attack, with which the first is compared

EPOCHS, PASSES = "equal epochs", "equal passes"  # budgets of training
REGIMES = SMOOTH, TRUE = ("surrogate-smooth", "true forward")  # of the forward pass
SEEDS = "seeds"  # what an interval is taken over where it tells of other networks and not of other images alone


def attack(row: dict, prefix: str = "") -> dict:
    """The labels of a row that name its attack, or with `prefix` "reference_" the attack it is compared with."""
    return {name: row[prefix + name] for name in ATTACK if prefix + name in row}
