"""Which attacks a table or figure holds a network against; each as a list for `evaluations.evaluated`."""

from collections.abc import Sequence
from dataclasses import replace

from paperlib import attacks, errors
from paperlib.attacks import Attack, standard
from paperlib.claims import WORST
from paperlib.evaluations import AnyAttack, Ensemble, Transfer
from paperlib.experiments import Experiment

# The backward rules of the released white-box ensemble (section 5 of the paper notes); {}: the network's own.
FOUR_RULES = ({}, {"name": "sigmoid", "slope": 4.0}, {"name": "atan", "gamma": 2.0}, {"name": "rate"})
FAMILIES = ("triangle", "rectangle", "exponential")


def ladder(eps_255: Sequence[float], *, steps: int) -> list[Attack | None]:
    """Clean, then at each radius uniform and sign noise, FGSM and PGD."""
    names = [*attacks.RANDOM, "fgsm", "pgd"]
    return [None, *(standard(name, e / 255, steps=steps) for e in eps_255 for name in names)]


def released(eps_255: Sequence[float], steps: Sequence[int]) -> list[AnyAttack]:
    """The paper's white-box table: clean, then at each radius FGSM, RFGSM and PGD of so many `steps`, by four rules.

    PGD's step is the released one, 2.55/255 at 8/255, and grows with the radius.  Each attack stands alone, by the
    network's own rule, and as the worst case of `FOUR_RULES`; then comes the worst of them all.
    """
    found: list[AnyAttack] = [None]
    for radius in eps_255:
        eps = radius / 255
        pgd = [Attack("pgd", eps, {"alpha": eps * 2.55 / 8, "steps": count, "until_broken": True}) for count in steps]
        alone = [standard("fgsm", eps), standard("rfgsm", eps), *pgd]
        ensembles = [Ensemble(f"{one.title}, four rules", _by_four(one)) for one in alone]
        everything = [member for ensemble in reversed(ensembles) for member in ensemble.members]
        found += [*alone, *ensembles, Ensemble(WORST, sorted(everything, key=lambda member: member.gradients))]
    return found


def widths(eps_255: float, gammas: Sequence[float], *, steps: int) -> list[Attack]:
    """PGD by triangles, rectangles and exponentials of each width γ."""
    rules = ({"name": family, "gamma": float(gamma)} for family in FAMILIES for gamma in gammas)
    return [standard("pgd", eps_255 / 255, steps=steps, rule=rule) for rule in rules]


def rungs(
    eps_255: float, *, steps: int, gammas: Sequence[float], long_steps: int, queries: int, source: Experiment
) -> list[Ensemble]:
    """Attacks from the weakest to the strongest, each rung with all those below it: the worst case so far.

    `steps` is of PGD, `long_steps` of SA-PGD and APGD, `source` the network that transferred examples are made on.
    """
    eps = eps_255 / 255

    def pgd(rule: dict) -> Attack:
        return standard("pgd", eps, steps=steps, rule=rule)

    climbed: list[Attack | Transfer] = []
    found = []
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
        ("Square", [standard("square", eps, queries=queries)]),
        ("transfer", [Transfer(transferable(eps_255, steps=steps), source)]),
    ):  # fmt: skip
        climbed += members
        found.append(Ensemble(f"up to {title}" if found else title, tuple(climbed)))
    return [*found[:-1], replace(found[-1], title=WORST)]


def transferable(eps_255: float, *, steps: int, rule: dict | None = None) -> Attack:
    """PGD that goes on after it has broken the network that it is made on."""
    eps = eps_255 / 255
    return Attack("pgd", eps, {"alpha": 2.5 * eps / steps, "steps": steps}, rule or {})


def black_box(eps_255: float, *, sources: Sequence[Experiment], steps: int, queries: int) -> list[AnyAttack]:
    """Clean and white-box PGD; Square; PGD made on each of `sources`, by its own rule and by four, which then transfer.

    The four rules are those of the substitute, which really differentiates by them (section 5 of the notes, fault 2).
    """
    found: list[AnyAttack] = [None, standard("pgd", eps_255 / 255, steps=steps)]
    for source in sources:
        made = [Transfer(transferable(eps_255, steps=steps, rule=rule), source) for rule in FOUR_RULES]
        found += [made[0], Ensemble(f"{made[0].title}, four rules", made)]
    return [*found, standard("square", eps_255 / 255, queries=queries)]


def expectations(eps_255: float, draws: Sequence[int], *, steps: int) -> list[Attack | None]:
    """For networks that draw at random: clean, noise, PGD of one draw, the released loop, PGD in expectation."""
    eps = eps_255 / 255
    one = transferable(eps_255, steps=steps)
    errors.count("the smallest number of draws", min(draws), at_least=2)
    overwritten = [Attack("overwritten_eot", eps, one.options | {"draws": count}) for count in draws]
    averaged = [replace(one, options=one.options | {"eot": count}) for count in draws]
    return [None, standard("uniform", eps), one, *overwritten, *averaged]


def _by_four(attack: Attack) -> tuple[Attack, ...]:
    return tuple(replace(attack, rule=rule) for rule in FOUR_RULES)
