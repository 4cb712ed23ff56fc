"""Sanity checks: why the number of an evaluation should not be believed, and what to do about it.

Overstated robustness has failed each of them before (Carlini et al., arXiv 1902.06705; section 7 of the paper notes).
Two evaluations of one network on the same samples are compared, which counts where their flags differ beyond chance.
"""

from collections.abc import Iterable, Sequence

from paperlib.attacks.attack import Attack
from paperlib.attacks.ensembles import AnyAttack, Transfer, members
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
CONTRADICTED = "an attack broke a certified image, so that one of the two is wrong; please report it as a fault"
SHORTER = "fewer steps break more; give it restarts, or shorten its steps"


def doubts(judged: Sequence[Judged]) -> list[list[str]]:
    """The reasons to doubt each evaluation, in the same order and mostly none; all are of one network."""
    return [union([_by_itself(evaluation), _by_comparison(evaluation, judged)]) for evaluation in judged]


def union(reasons: Iterable[list[str]]) -> list[str]:
    """Each reason once, in order of first appearance."""
    return list(dict.fromkeys(reason for some in reasons for reason in some))


def _by_itself(evaluation: Judged) -> list[str]:
    """The reasons that an evaluation gives without any other."""
    one_draw = evaluation.stochastic and any(
        isinstance(member, Attack) and member.gradients and member.options.get("eot", 1) == 1
        for member in members(evaluation.attack)
    )
    checks = {VANISHED: evaluation.vanished > MANY, STRAYED: evaluation.strayed > 0, DRAWN: one_draw}
    return [reason for reason, applies in checks.items() if applies]


def _by_comparison(evaluation: Judged, others: Sequence[Judged]) -> list[str]:
    """The reasons to doubt a gradient attack because one of `others` broke more."""
    weaker = [(_weaker(other.attack, evaluation.attack), other.flags) for other in others]
    return [why for why, flags in weaker if why and statistics.paired_difference(evaluation.flags, flags).low > 0]


def _weaker(other: AnyAttack, attack: AnyAttack) -> str | None:
    """Why `other` should break no more than the gradient attack `attack`; None where it may well break more."""
    gradient_attack = isinstance(attack, Attack) and attack.gradients
    if not gradient_attack or not isinstance(other, Attack | Transfer):  # clean, or the worst of several
        return None
    if other.norm != attack.norm:  # a change of few events is no smaller one of all counts
        return None
    same_radius, iterated = other.eps == attack.eps, attack.gradients > 1
    if isinstance(other, Attack) and other.declared.noise:
        return NOISE if same_radius else None
    if isinstance(other, Transfer) or not other.gradients:
        return BLIND if same_radius and iterated else None
    if other.name == "fgsm" and other.rule == attack.rule and iterated:
        return ONE_STEP if same_radius else None
    if _kind(other) != _kind(attack):
        return None
    if same_radius:
        return SHORTER if other.gradients < attack.gradients else None
    return SMALLER if other.eps < attack.eps and other.gradients == attack.gradients else None


def _kind(attack: Attack) -> tuple:
    """What two attacks have in common that differ by their radius or number of steps alone."""
    options = {name: value for name, value in attack.options.items() if name not in ("steps", "alpha")}
    return attack.name, repr(attack.rule), repr(options)
