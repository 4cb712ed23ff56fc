"""The attacks of each table and figure on one network, as lists for `evaluations.evaluated`.

None in a list stands for clean images.  Radii `eps_255` are in 1/255 of an image's range, `eps_counts` in counts of a
cell of a frame, `flips` in changed events.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from paperlib import errors
from paperlib.attacks.attack import Attack, standard
from paperlib.attacks.ensembles import AnyAttack, Beginning, Ensemble, Source, Transfer
from paperlib.labels import FOUR, PROTOCOL, RANDOM_FLIPS, SO_FAR, WIDTHS, WORST

RANDOM = ("uniform", "sign")  # noise in pixels or counts

# The backward rules of the released white-box ensemble (section 5 of the paper notes); {} is the network's own rule.
FOUR_RULES = ({}, {"name": "sigmoid", "slope": 4.0}, {"name": "atan", "gamma": 2.0}, {"name": "rate"})
FAMILIES = ("triangle", "rectangle", "exponential")
OTHER_RULES = ("rate", "assg", "pdsg", "straight-through")  # rules without a width
BUDGETS = ("quick", "standard", "full")  # of `of_budget`


def ladder(eps_255: Sequence[float], *, steps: int) -> list[Attack | None]:
    """Clean images, then at each radius uniform noise, sign noise, FGSM and PGD."""
    names = [*RANDOM, "fgsm", "pgd"]
    return [None, *(standard(name, e / 255, steps=steps) for e in eps_255 for name in names)]


def released(eps_255: Sequence[float], steps: Sequence[int]) -> list[AnyAttack]:
    """The paper's white-box table: clean images, then at each radius FGSM, RFGSM and PGD with each of `steps`.

    The step length of PGD is the released one, 2.55/255 at radius 8/255, in proportion to the radius.  It is the same
    for all of `steps`, so only the longest PGD is run, and the others are read off it.  Each attack comes alone, by the
    network's own rule, and as the worst case of `FOUR_RULES`.  The last one of a radius is the worst case of all its
    attacks.
    """
    attacks: list[AnyAttack] = [None]
    for radius in eps_255:
        eps = radius / 255
        options = [{"alpha": eps * 2.55 / 8, "steps": count, "until_broken": True} for count in steps]
        pgd = [
            Beginning("pgd", eps, o, run_to=max(steps)) if o["steps"] < max(steps) - 1 else Attack("pgd", eps, o)
            for o in options
        ]
        alone = [standard("fgsm", eps), standard("rfgsm", eps), *pgd]
        ensembles = [_by_four(one) for one in alone]
        everything = [member for ensemble in reversed(ensembles) for member in ensemble.members]
        attacks += [*alone, *ensembles, Ensemble(PROTOCOL, sorted(everything, key=lambda member: member.gradients))]
    return attacks


def widths(eps_255: float, gammas: Sequence[float], *, steps: int) -> list[Attack]:
    """PGD by triangle, rectangle and exponential rules of each width γ in `gammas`."""
    rules = ({"name": family, "gamma": float(gamma)} for family in FAMILIES for gamma in gammas)
    return [standard("pgd", eps_255 / 255, steps=steps, rule=rule) for rule in rules]


def rules_at(eps_255: float, gammas: Sequence[float], *, steps: int) -> list[AnyAttack]:
    """Clean images, then PGD by several rules: the network's own, `OTHER_RULES`, and those of `widths`.

    By the network's own rule PGD comes twice: with `steps` steps, and with as many as all of `widths` have together.
    The last attack is the worst case of all widths.
    """
    swept = widths(eps_255, gammas, steps=steps)
    plain = [standard("pgd", eps_255 / 255, steps=count) for count in (steps, steps * len(swept))]
    others = [standard("pgd", eps_255 / 255, steps=steps, rule={"name": name}) for name in OTHER_RULES]
    return [None, *plain, *others, *swept, Ensemble("pgd", swept, {"rules": WIDTHS})]


def rungs(eps_255: float, *, steps: int, long_steps: int, queries: int) -> list[Attack | Ensemble]:
    """A ladder of attacks from the weakest to the strongest; the last one is `strongest`.

    Uniform noise, FGSM and PGD stand alone.  The next is the worst case of PGD and of APGD on both losses, and the last
    adds Square.  Noise is where PGD starts, and APGD is what Square starts from, so each of these rungs breaks all that
    the one before it breaks; FGSM is no part of PGD.
    """
    eps = eps_255 / 255
    noise, one_step, pgd = (standard(name, eps, steps=steps) for name in ("uniform", "fgsm", "pgd"))
    apgd = [Attack("apgd", eps, {"steps": long_steps, "loss": loss}) for loss in ("ce", "dlr")]
    last = strongest(eps_255, steps=steps, long_steps=long_steps, queries=queries)
    return [noise, one_step, pgd, Ensemble(SO_FAR, (pgd, *apgd), {"up_to": "APGD"}), last]


def strongest(eps_255: float, *, steps: int, long_steps: int, queries: int) -> Ensemble:
    """The worst case that decides: PGD with `steps` steps, then APGD-Square.

    APGD-Square is APGD with `long_steps` steps on the cross-entropy and on the DLR loss, and Square with `queries`
    queries from the better of their results.  Square finds examples where the gradients of SR mislead PGD
    (`tab-masking-checklist`).  Other backward rules are no part of it (`tab-whitebox`, `fig-surrogate-width`).
    """
    return _strongest(eps_255 / 255, steps=steps, long_steps=long_steps, queries=queries)


def _strongest(eps: float, *, steps: int, long_steps: int, queries: int) -> Ensemble:
    """`strongest` at a radius in the units of the samples."""
    members = (standard("pgd", eps, steps=steps), standard("apgd_square", eps, steps=long_steps, queries=queries))
    return Ensemble(WORST, members)


def queries_spent(attack: Ensemble, passes: np.ndarray) -> np.ndarray:
    """How many of the queries of `strongest` each sample cost, from its `passes`, (N,) as in an `Evaluation`.

    0 for a sample that broke earlier.  Before Square a sample costs a forward and a backward pass for each gradient,
    and 5 forward passes: the result of PGD, the clean image, the last iterate of each of the two runs of APGD, and the
    result of Square.
    """
    return np.maximum(passes - 2 * attack.gradients - 5, 0)


def on_events(eps_counts: Sequence[float], flips: Sequence[int], *, steps: int, flip_steps: int) -> list[Attack | None]:
    """Clean images; PGD and flips at radius 0, where nothing may change; the attacks in counts; the flips.

    At each of `eps_counts` come uniform noise, sign noise, FGSM and PGD, at each of `flips` random flips and sparse
    flips.
    """
    names = [*RANDOM, "fgsm", "pgd"]
    nothing = [standard("pgd", 0.0, steps=1), standard("sparse_flips", 0, steps=1)]
    in_counts = [standard(name, float(eps), steps=steps) for eps in eps_counts for name in names]
    whole = [standard(name, k, steps=flip_steps) for k in flips for name in (RANDOM_FLIPS, "sparse_flips")]
    return [None, *nothing, *in_counts, *whole]


def in_time(moves: Sequence[int], strong_moves: int, *, steps: int) -> tuple[list[Attack], Ensemble]:
    """Events moved in time: at random and by gradient, at each of `moves`; the worst case of four rules at one."""
    found = [standard(name, k, steps=steps) for k in moves for name in ("random_retiming", "retiming")]
    worst = [standard("retiming", strong_moves, steps=steps, rule=rule) for rule in FOUR_RULES]
    return found, Ensemble(WORST, worst)


def random_on_events(
    eps_counts: Sequence[float], flips: Sequence[int], factors: Sequence[int], *, steps: int, flip_steps: int
) -> tuple[list[Attack], list[Attack]]:
    """Noise at each radius times each of `factors`, and attacks at each radius.

    Noise is uniform and sign noise in counts and random flips; the attacks are PGD in counts and sparse flips.
    """
    radii = {law: eps_counts for law in RANDOM} | {RANDOM_FLIPS: flips}
    noise = [
        standard(law, size)
        for law, sizes in radii.items()
        for size in sorted({round(k * radius, 6) for k in factors for radius in sizes})
    ]
    attacked = [standard("pgd", float(eps), steps=steps) for eps in eps_counts]
    return noise, [*attacked, *(standard("sparse_flips", k, steps=flip_steps) for k in flips)]


def worst_on_events(
    eps_counts: float, flips: int, *, steps: int, long_steps: int, queries: int, flip_steps: int
) -> list[Ensemble]:
    """The worst case within `eps_counts` of each count, and the worst case within `flips` changed events.

    The first is `strongest`, with its radius in counts.  The second is that of sparse flips by four rules.
    """
    within = _strongest(float(eps_counts), steps=steps, long_steps=long_steps, queries=queries)
    changed = [standard("sparse_flips", flips, steps=flip_steps, rule=rule) for rule in FOUR_RULES]
    return [within, Ensemble(WORST, changed)]


def transferable(eps_255: float, *, steps: int, rule: dict | None = None) -> Attack:
    """PGD that does not stop at the first misclassified iterate, for examples that shall transfer."""
    eps = eps_255 / 255
    return Attack("pgd", eps, {"alpha": 2.5 * eps / steps, "steps": steps}, rule or {})


def black_box(eps_255: float, *, sources: Sequence[Source], steps: int, queries: int) -> list[AnyAttack]:
    """Clean images, white-box PGD, transfers from each of `sources`, and Square.

    From each source PGD transfers by the source's own rule and as the worst case of `FOUR_RULES`.  It is the source
    that differentiates by these rules (section 5 of the paper notes, fault 2).
    """
    attacks: list[AnyAttack] = [None, standard("pgd", eps_255 / 255, steps=steps)]
    for source in sources:
        made = [Transfer(transferable(eps_255, steps=steps, rule=rule), source) for rule in FOUR_RULES]
        attacks += [made[0], _four(made)]
    return [*attacks, standard("square", eps_255 / 255, queries=queries)]


class Checklist(NamedTuple):
    """The attacks that the gradient-masking checklist compares, at one radius except `unbounded` and `radii`."""

    gradient: Attack  # PGD, whose number is checked
    longer: Attack  # PGD with more steps
    one_step: Attack
    square: Attack
    random: Attack  # random search with a tenth of Square's queries as draws
    transfer: Transfer
    unbounded: Attack
    strongest: Ensemble  # the worst case that no other attack may beat
    radii: tuple[Attack, ...]  # PGD from the smallest radius to the largest, `gradient` among them

    @property
    def attacks(self) -> list[AnyAttack]:
        """Clean images, then every attack once."""
        *single, radii = self
        return [None, *single, *(attack for attack in radii if attack != self.gradient)]


def checklist(
    eps_255: float, radii_255: Sequence[float], *, steps: int, long_steps: int, queries: int, source: Source
) -> Checklist:
    """The checklist at `eps_255`; `source` is the network on which transferred examples are made.

    The unbounded attack is PGD with `long_steps` steps at ε = 255/255, where every image may become any other.  Refuses
    `long_steps` that are not more than `steps`, and `radii_255` without a radius other than `eps_255`.
    """
    errors.count("long_steps", long_steps, at_least=steps + 1)
    eps, radii = eps_255 / 255, sorted({float(eps_255), *map(float, radii_255)})
    if len(radii) < 2:
        raise errors.Refused(f"radii_255 is {list(radii_255)}; it must hold another radius than eps_255 = {eps_255:g}.")
    return Checklist(
        gradient=standard("pgd", eps, steps=steps),
        longer=standard("pgd", eps, steps=long_steps),
        one_step=standard("fgsm", eps),
        square=standard("square", eps, queries=queries),
        random=standard("random_search", eps, queries=max(1, queries // 10)),
        transfer=Transfer(transferable(eps_255, steps=steps), source),
        unbounded=standard("pgd", 1.0, steps=long_steps),
        strongest=strongest(eps_255, steps=steps, long_steps=long_steps, queries=queries),
        radii=tuple(standard("pgd", e / 255, steps=steps) for e in radii),
    )


def expectations(eps_255: float, draws: Sequence[int], *, steps: int) -> list[Attack | None]:
    """Attacks on networks that draw at random, with each of `draws` draws a gradient.

    Clean images, uniform noise, PGD with one draw, then with each number of draws the released loop, which keeps the
    last draw, and last PGD with the mean of the draws.  Refuses fewer than 2 draws.
    """
    eps = eps_255 / 255
    one = transferable(eps_255, steps=steps)
    errors.count("the smallest number of draws", min(draws), at_least=2)
    overwritten = [Attack("overwritten_eot", eps, one.options | {"draws": count}) for count in draws]
    averaged = [replace(one, options=one.options | {"eot": count}) for count in draws]
    return [None, standard("uniform", eps), one, *overwritten, *averaged]


def expectation_pairs(eps_255: float, draws: Sequence[int], *, steps: int) -> list[tuple[Attack, Attack]]:
    """The pairs of `expectations` to compare: the released loop with one draw, then the mean with that loop."""
    _, _, one, *others = expectations(eps_255, draws, steps=steps)
    overwritten, averaged = others[: len(draws)], others[len(draws) :]
    return [(loop, one) for loop in overwritten] + list(zip(averaged, overwritten, strict=True))


def of_budget(budget: str, eps: float, *, num_classes: int, has_rules: bool) -> list[Attack]:
    """The attacks of `paperlib.judge` within `eps` in l∞, the cheapest first.

    "quick": uniform noise, FGSM, PGD-20 and Square-200.
    "standard" adds sign noise, APGD-100 on both losses and PGD-20 by the three other rules of `FOUR_RULES`; Square has
    1000 queries.
    "full" adds PGD-20 by rules of other widths, PGD-100, SA-PGD by ASSG, PGD-20 by PDSG, and APGD-Square, which makes
    the worst case at least as strong as `strongest`; Square has 5000 queries.

    The DLR loss needs three classes, and backward rules need a network that takes them (`has_rules`); attacks that the
    network does not allow are left out.  Refuses a budget that is not in `BUDGETS`.
    """
    errors.one_of("budget", budget, BUDGETS)
    level = BUDGETS.index(budget)
    queries = (200, 1000, 5000)[level]
    attacks = [standard("uniform", eps), standard("fgsm", eps), standard("pgd", eps)]
    if level >= 1:
        attacks.insert(1, standard("sign", eps))
        if has_rules:
            attacks += [standard("pgd", eps, rule=rule) for rule in FOUR_RULES[1:]]
        losses = ("ce", "dlr") if num_classes >= 3 else ("ce",)
        attacks += [Attack("apgd", eps, {"steps": 100, "loss": loss}) for loss in losses]
    if level == 2:
        attacks.append(standard("pgd", eps, steps=100))
        if has_rules:
            attacks += widths(255 * eps, (0.5, 2.0), steps=20)
            attacks.append(standard("sa_pgd", eps, steps=100, rule={"name": "assg"}))
            attacks.append(standard("pgd", eps, rule={"name": "pdsg"}))
        attacks.append(standard("apgd_square", eps, steps=100, queries=queries))
    return [*attacks, standard("square", eps, queries=queries)]


def _by_four(attack: Attack) -> Ensemble:
    return _four([replace(attack, rule=rule) for rule in FOUR_RULES])


def _four(members: Sequence[Attack | Transfer]) -> Ensemble:
    """The worst case of `members`, which are one attack by each of `FOUR_RULES`, the network's own first."""
    labels = members[0].labels
    return Ensemble(labels.pop("attack"), members, labels | {"rules": FOUR})
