"""Labels of a record's rows, by which code selects rows.  `words` holds the titles that readers see instead.

A row names its attack by the labels of `ATTACK`: {"attack": "pgd", "steps": 20, "rule": "sigmoid", "slope": 4.0}.
"""

CLEAN = "clean"  # the attack of clean images
WORST = "worst"  # the worst case of all attacks of a notebook
PROTOCOL = "protocol"  # the worst case of the attacks of the paper's white-box table
SO_FAR = "so far"  # the worst case of a rung of the ladder and all rungs below; the label `up_to` names the rung
FOUR, WIDTHS = "four", "widths"  # values of the label `rules`: the worst case over a set of backward rules
RANDOM_FLIPS = "random_flips"  # the attack that changes whole events at random
OWN_LOOP = "overwritten_eot"  # the attack PGD whose loop draws several times and keeps the last draw

ATTACK = (  # the labels that name an attack, in the order of its title
    *("attack", "up_to", "loss", "steps", "queries", "draws", "restarts", "eot", "norm"),
    *("rule", "slope", "gamma", "a", "made_on", "made_on_network", "rules"),
)
REFERENCE = "reference_"  # prefix of the labels of a second attack, with which the first is compared

ACROSS = NETWORKS, WITHIN_TRAININGS, WITHIN_SR = ("networks", "within trainings", "within SR")  # of a correlation
EPOCHS, PASSES = "equal epochs", "equal passes"  # budgets of training
KEPT = 0.95  # a bound counts as kept where it holds for at least so many samples; C2 about networks is judged by it
REGIMES = SMOOTH, TRUE = ("surrogate-smooth", "true forward")  # of the forward pass
BOTH = "seeds and samples"  # value of the label `over`: an interval over networks and samples, both random
SAMPLES = "samples"  # value of the label `over`: an interval over samples of one network
SEEDS = "seeds"  # value of the label `over`: an interval over seeds, which tells of other networks, not images alone


def attack(row: dict, prefix: str = "") -> dict:
    """The labels of a row that name its attack.  With the prefix `REFERENCE`: the attack that it is compared with."""
    return {name: row[prefix + name] for name in ATTACK if prefix + name in row}
