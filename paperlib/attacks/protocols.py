"""The attacks that each table or figure makes on a network, as lists for `evaluations.evaluated`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from paperlib import errors
from paperlib.attacks.attack import Attack, standard
from paperlib.attacks.ensembles import AnyAttack, Ensemble, Source, Transfer
from paperlib.labels import FOUR, RANDOM_FLIPS, SO_FAR, WIDTHS, WORST

RANDOM = ("uniform", "sign")  # laws of noise in counts or pixels

# The backward rules of the released white-box ensemble (section 5 of the paper notes); {}: the network's own.
FOUR_RULES = ({}, {"name": "sigmoid", "slope": 4.0}, {"name": "atan", "gamma": 2.0}, {"name": "rate"})
FAMILIES = ("triangle", "rectangle", "exponential")
OTHER_RULES = ("rate", "assg", "pdsg", "straight-through")  # that have no width


def ladder(eps_255: Sequence[float], *, steps: int) -> list[Attack | None]:
    """Clean, then at each radius uniform and sign noise, FGSM and PGD."""
    names = [*RANDOM, "fgsm", "pgd"]
    return [None, *(standard(name, e / 255, steps=steps) for e in eps_255 for name in names)]


def released(eps_255: Sequence[float], steps: Sequence[int]) -> list[AnyAttack]:
    """The paper's white-box table: clean, then at each radius FGSM, RFGSM and PGD of so many `steps`, by four rules.

    PGD's step is the released one, 2.55/255 at 8/255, and grows with the radius.  Each attack stands alone, by the
    network's own rule, and as the worst case of `FOUR_RULES`; then comes the worst of them all.
    """
    attacks: list[AnyAttack] = [None]
    for radius in eps_255:
        eps = radius / 255
        pgd = [Attack("pgd", eps, {"alpha": eps * 2.55 / 8, "steps": count, "until_broken": True}) for count in steps]
        alone = [standard("fgsm", eps), standard("rfgsm", eps), *pgd]
        ensembles = [_by_four(one) for one in alone]
        everything = [member for ensemble in reversed(ensembles) for member in ensemble.members]
        attacks += [*alone, *ensembles, Ensemble(WORST, sorted(everything, key=lambda member: member.gradients))]
    return attacks


def widths(eps_255: float, gammas: Sequence[float], *, steps: int) -> list[Attack]:
    """PGD by triangles, rectangles and exponentials of each width γ."""
    rules = ({"name": family, "gamma": float(gamma)} for family in FAMILIES for gamma in gammas)
    return [standard("pgd", eps_255 / 255, steps=steps, rule=rule) for rule in rules]


def rules_at(eps_255: float, gammas: Sequence[float], *, steps: int) -> list[AnyAttack]:
    """Clean; PGD by the network's own rule, then with as many steps as all `widths` have; by `OTHER_RULES`; by widths.

    Last, all widths together: an image is robust that survives them all.
    """
    swept = widths(eps_255, gammas, steps=steps)
    own = [standard("pgd", eps_255 / 255, steps=count) for count in (steps, steps * len(swept))]
    others = [standard("pgd", eps_255 / 255, steps=steps, rule={"name": name}) for name in OTHER_RULES]
    return [None, *own, *others, *swept, Ensemble("pgd", swept, {"rules": WIDTHS})]


def rungs(
    eps_255: float, *, steps: int, gammas: Sequence[float], long_steps: int, queries: int, source: Source
) -> list[Ensemble]:
    """Attacks from the weakest to the strongest, each rung with all those below it: the worst case so far.

    `steps` is of PGD, `long_steps` of SA-PGD and APGD, `queries` of Square, which starts where APGD ended; `source` is
    the network that transferred examples are made on.
    """
    eps = eps_255 / 255

    def pgd(rule: dict) -> Attack:
        return standard("pgd", eps, steps=steps, rule=rule)

    climbed: list[Attack | Transfer] = []
    rungs_ = []
    for title, members in (
        ("uniform noise", [standard("uniform", eps)]),
        ("FGSM", [standard("fgsm", eps)]),
        (pgd({}).title, [pgd({})]),
        ("four rules", [pgd(rule) for rule in FOUR_RULES[1:]]),
        ("widths", widths(eps_255, gammas, steps=steps)),
        ("adaptive rules", [
            standard("sa_pgd", eps, steps=long_steps, rule={"name": "assg"}),
            standard("pgd", eps, steps=steps, rule={"name": "pdsg"}),
        ]),
        ("APGD", [Attack("apgd", eps, {"steps": long_steps, "loss": loss}) for loss in ("ce", "dlr")]),
        ("Square", [standard("apgd_square", eps, steps=long_steps, queries=queries)]),
        ("transfer", [Transfer(transferable(eps_255, steps=steps), source)]),
    ):  # fmt: skip
        climbed += members
        rungs_.append(Ensemble(SO_FAR, tuple(climbed), {"up_to": title}))
    first, *others, last = rungs_
    return [replace(first, name="uniform", more={}), *others, replace(last, name=WORST, more={})]


def strongest(eps_255: float, *, steps: int, long_steps: int, queries: int) -> Ensemble:
    """The strongest worst case that many networks can afford: PGD of `steps`, then APGD, then Square from its end.

    Where SR has made gradients mislead PGD, Square finds what they hide (`tab-masking-checklist`).
    """
    eps = eps_255 / 255
    members = (standard("pgd", eps, steps=steps), standard("apgd_square", eps, steps=long_steps, queries=queries))
    return Ensemble(WORST, members)


def on_events(eps_counts: Sequence[float], flips: Sequence[int], *, steps: int, flip_steps: int) -> list[Attack | None]:
    """Clean; both attacks at no radius, where nothing may change; at each radius noise, FGSM and PGD, then flips.

    `eps_counts` are in counts of a frame's cell, `flips` budgets of whole events, changed at random and by gradient.
    """
    names = [*RANDOM, "fgsm", "pgd"]
    nothing = [standard("pgd", 0.0, steps=1), standard("sparse_flips", 0, steps=1)]
    in_counts = [standard(name, float(eps), steps=steps) for eps in eps_counts for name in names]
    whole = [standard(name, k, steps=flip_steps) for k in flips for name in (RANDOM_FLIPS, "sparse_flips")]
    return [None, *nothing, *in_counts, *whole]


def random_on_events(
    eps_counts: Sequence[float], flips: Sequence[int], factors: Sequence[int], *, steps: int, flip_steps: int
) -> tuple[list[Attack], list[Attack]]:
    """Noise at each of `factors` times each radius, and the attacks at the radii: in counts, then of whole events."""
    radii = {law: eps_counts for law in RANDOM} | {RANDOM_FLIPS: flips}
    noise = [
        standard(law, size)
        for law, own in radii.items()
        for size in sorted({round(k * radius, 6) for k in factors for radius in own})
    ]
    attacked = [standard("pgd", float(eps), steps=steps) for eps in eps_counts]
    return noise, [*attacked, *(standard("sparse_flips", k, steps=flip_steps) for k in flips)]


def worst_on_events(
    eps_counts: float, flips: int, *, steps: int, long_steps: int, queries: int, flip_steps: int
) -> list[Ensemble]:
    """The worst case within ε of each count, and that within a budget of changed events.

    The first is PGD by four rules, SA-PGD with ASSG, APGD, and Square from its end; the second is flips by four rules.
    """
    eps = float(eps_counts)
    within = [standard("pgd", eps, steps=steps, rule=rule) for rule in FOUR_RULES]
    within.append(standard("sa_pgd", eps, steps=long_steps, rule={"name": "assg"}))
    within.append(standard("apgd_square", eps, steps=long_steps, queries=queries))
    changed = [standard("sparse_flips", flips, steps=flip_steps, rule=rule) for rule in FOUR_RULES]
    return [Ensemble(WORST, within), Ensemble(WORST, changed)]


def transferable(eps_255: float, *, steps: int, rule: dict | None = None) -> Attack:
    """PGD that goes on after it has broken the network that it is made on."""
    eps = eps_255 / 255
    return Attack("pgd", eps, {"alpha": 2.5 * eps / steps, "steps": steps}, rule or {})


def black_box(eps_255: float, *, sources: Sequence[Source], steps: int, queries: int) -> list[AnyAttack]:
    """Clean and white-box PGD; Square; PGD made on each of `sources`, by its own rule and by four, which then transfer.

    The four rules are those of the substitute, which really differentiates by them (section 5 of the notes, fault 2).
    """
    attacks: list[AnyAttack] = [None, standard("pgd", eps_255 / 255, steps=steps)]
    for source in sources:
        made = [Transfer(transferable(eps_255, steps=steps, rule=rule), source) for rule in FOUR_RULES]
        attacks += [made[0], _four(made)]
    return [*attacks, standard("square", eps_255 / 255, queries=queries)]


class Checklist(NamedTuple):
    """What the gradient-masking checklist compares on one network, all but `unbounded` and `radii` at one radius."""

    gradient: Attack  # PGD: the number that is checked
    longer: Attack  # PGD with more steps
    one_step: Attack
    square: Attack
    random: Attack  # a tenth as many draws as Square has queries: it learns nothing from them
    transfer: Transfer
    unbounded: Attack
    radii: tuple[Attack, ...]  # PGD from the smallest radius to the largest, `gradient` among them

    @property
    def attacks(self) -> list[AnyAttack]:
        """All of it, clean images first, each once."""
        *own, radii = self
        return [None, *own, *(attack for attack in radii if attack != self.gradient)]


def checklist(
    eps_255: float, radii_255: Sequence[float], *, steps: int, long_steps: int, queries: int, source: Source
) -> Checklist:
    """The checklist at `eps_255`; `source` is the network that transferred examples are made on.

    The unbounded attack is PGD of `long_steps` at ε = 255/255, where every image may become any other.  Refuses
    `long_steps` that are not more than `steps`, and radii among which nothing can rise.
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
        radii=tuple(standard("pgd", e / 255, steps=steps) for e in radii),
    )


def expectations(eps_255: float, draws: Sequence[int], *, steps: int) -> list[Attack | None]:
    """For networks that draw at random: clean, noise, PGD of one draw, the released loop, PGD in expectation."""
    eps = eps_255 / 255
    one = transferable(eps_255, steps=steps)
    errors.count("the smallest number of draws", min(draws), at_least=2)
    overwritten = [Attack("overwritten_eot", eps, one.options | {"draws": count}) for count in draws]
    averaged = [replace(one, options=one.options | {"eot": count}) for count in draws]
    return [None, standard("uniform", eps), one, *overwritten, *averaged]


def expectation_pairs(eps_255: float, draws: Sequence[int], *, steps: int) -> list[tuple[Attack, Attack]]:
    """Which of `expectations` to compare: the released loop with one draw, then the expectation with that loop."""
    _, _, one, *others = expectations(eps_255, draws, steps=steps)
    overwritten, averaged = others[: len(draws)], others[len(draws) :]
    return [(loop, one) for loop in overwritten] + list(zip(averaged, overwritten, strict=True))


def _by_four(attack: Attack) -> Ensemble:
    return _four([replace(attack, rule=rule) for rule in FOUR_RULES])


def _four(members: Sequence[Attack | Transfer]) -> Ensemble:
    """One attack by the four rules, the network's own first."""
    labels = members[0].labels
    return Ensemble(labels.pop("attack"), members, labels | {"rules": FOUR})


BUDGETS = ("quick", "standard", "full")


def of_budget(budget: str, eps: float, *, num_classes: int, has_rules: bool) -> list[Attack]:
    """The attacks of `paperlib.judge` within `eps` in l∞, the cheapest first.

    "quick": uniform noise, FGSM, PGD-20, Square-200.  "standard": sign noise, APGD-100 on both losses, PGD-20 by the
    three other rules of `FOUR_RULES`, and Square-1000 besides.  "full": rules of other widths, PGD-100, SA-PGD with
    ASSG, PDSG, Square-5000, and Square from where APGD ended besides.  The DLR loss needs three classes; other rules
    need a network that takes them (`has_rules`).
    """
    level = BUDGETS.index(budget)
    queries = (200, 1000, 5000)[level]
    losses = ("ce", "dlr") if num_classes >= 3 else ("ce",)
    attacks = [standard("uniform", eps), standard("fgsm", eps), standard("pgd", eps)]
    if level >= 1:
        attacks.insert(1, standard("sign", eps))
        attacks += [standard("pgd", eps, rule=rule) for rule in FOUR_RULES[1:] if has_rules]
        attacks += [Attack("apgd", eps, {"steps": 100, "loss": loss}) for loss in losses]
    if level == 2:
        attacks.append(standard("pgd", eps, steps=100))
        if has_rules:
            attacks += widths(255 * eps, (0.5, 2.0), steps=20)
            attacks.append(standard("sa_pgd", eps, steps=100, rule={"name": "assg"}))
            attacks.append(standard("pgd", eps, rule={"name": "pdsg"}))
        attacks.append(standard("apgd_square", eps, steps=100, queries=queries))
    return [*attacks, standard("square", eps, queries=queries)]
