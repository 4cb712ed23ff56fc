"""Sanity checks: why the number of an evaluation should not be believed, and what to do about it.

Each check is one that overstated robustness has failed before (Carlini et al., arXiv 1902.06705; section 7 of the paper
notes).  A comparison counts where the two sets of flags, of one network and the same samples, differ beyond chance.
"""

from collections.abc import Iterable, Sequence

from paperlib.attacks.attack import Attack
from paperlib.attacks.ensembles import Transfer, members
from paperlib.attacks.evaluation import Judged
from paperlib.measures import statistics

MANY = 0.1  # share of gradients that may be exactly 0

VANISHED = "more than a tenth of its gradients are exactly 0 and moved nothing; take another backward rule or Square"
STRAYED = "it left its ball or the data's bounds; project what it returns"
DRAWN = "the network draws at random and each gradient is one draw; average them with eot=10 or more"
NOISE = "noise of the same size breaks more; its gradients mislead: take other backward rules, more steps, or Square"
BLIND = "an attack that sees no gradient breaks more; its gradients mislead: take other backward rules or more steps"
ONE_STEP = "a single step breaks more; shorten its steps, or take another backward rule"
SMALLER = "a smaller radius breaks more; give it more steps or restarts"
SHORTER = "fewer steps break more; give it restarts, or shorten its steps"


def doubts(judged: Sequence[Judged]) -> list[list[str]]:
    """The reasons to doubt each number of one network, given all of them; mostly none."""
    reasons = [_alone(one) for one in judged]
    for place, one in enumerate(judged):
        if isinstance(one.attack, Attack) and one.attack.gradients:
            reasons[place] += dict.fromkeys(
                why for other in judged if (why := _outdone(one.attack, other.attack)) and _breaks_more(other, one)
            )
    return reasons


def union(reasons: Iterable[list[str]]) -> list[str]:
    """Each reason once, in order of first appearance."""
    return list(dict.fromkeys(why for some in reasons for why in some))


def _alone(one: Judged) -> list[str]:
    """The reasons that an evaluation gives by itself."""
    drawn = one.stochastic and any(
        isinstance(member, Attack) and member.gradients and member.options.get("eot", 1) == 1
        for member in members(one.attack)
    )
    checks = {VANISHED: one.vanished > MANY, STRAYED: one.strayed > 0, DRAWN: drawn}
    return [why for why, holds in checks.items() if holds]


def _outdone(mine: Attack, theirs) -> str | None:
    """Why it would speak against `mine`, a gradient attack, if `theirs` broke more; None where that proves nothing."""
    same, iterated = theirs is not None and theirs.eps == mine.eps, mine.gradients > 1
    if theirs is not None and theirs.norm != mine.norm:  # a change of few events is no smaller one of all counts
        return None
    if isinstance(theirs, Transfer):
        return BLIND if same and iterated else None
    if not isinstance(theirs, Attack):  # clean images, or the worst of several
        return None
    if theirs.declared.noise:
        return NOISE if same else None
    if not theirs.gradients:
        return BLIND if same and iterated else None
    if theirs.name == "fgsm" and theirs.rule == mine.rule and iterated:
        return ONE_STEP if same else None
    if _kind(theirs) != _kind(mine):
        return None
    if same:
        return SHORTER if theirs.gradients < mine.gradients else None
    return SMALLER if theirs.eps < mine.eps and theirs.gradients == mine.gradients else None


def _kind(attack: Attack) -> tuple:
    """What is the same in an attack with another radius or more steps."""
    lengths = ("steps", "alpha")
    return attack.name, repr(attack.rule), repr({k: v for k, v in attack.options.items() if k not in lengths})


def _breaks_more(one: Judged, other: Judged) -> bool:
    return statistics.paired_difference(other.flags, one.flags).low > 0
