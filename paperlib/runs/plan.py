"""The plan of a profile: every training and evaluation that its notebooks ask for."""






from dataclasses import dataclass

from paperlib import attacks
from paperlib.attacks import protocols
from paperlib.attacks.attack import Attack
from paperlib.attacks.ensembles import AnyAttack
from paperlib.profiles.profile import Profile
from paperlib.store.evaluations import is_evaluated, size
from paperlib.store.experiment import Experiment, Imported


@dataclass(frozen=True)
class Evaluation:
    """One network under one attack (None: clean images)."""

    experiment: Experiment | Imported
    attack: AnyAttack
    samples: int
    split: str

    @property
    def is_there(self) -> bool:
        return is_evaluated(self.experiment, self.attack, samples=self.samples, split=self.split)

    def __str__(self) -> str:
        attack = "clean"
        if self.attack is not None:
            attack = f"{self.attack.title} at {radius(size(self.experiment, self.attack))}"
        kind = "recordings" if self.experiment.is_of_events else "images"
        return f"{attack}, {self.samples} {self.split} {kind}"


def evaluations(profile: Profile) -> list[Evaluation]:
    """Everything that the profile's notebooks attack, each once; continuous integration holds this to what they do."""
    found = {}
    for part, asked in ASKED.items():
        given = profile.parameters(part.partition("/")[0])
        subjects, ladder, split, samples, *_ = *asked(profile, given), given.get("samples")  # if it names no others
        for experiment in subjects:
            own = ladder(experiment) if callable(ladder) else ladder
            for attack in [None, *own]:  # clean flags come first: what is wrong already is not attacked
                one = Evaluation(experiment, attack, samples, split)
                found.setdefault((experiment.key, repr(attack), one.samples, split), one)
    return list(found.values())


def _random_and_adversarial(profile: Profile, given: dict):
    radii = given["eps_255"]
    louder = sorted({k * eps for k in given["factors"] for eps in radii})
    noise = [attacks.standard(law, eps / 255) for law in attacks.RANDOM for eps in louder]
    return profile.experiments(given["training"]), noise + [_pgd(given, eps) for eps in radii], "test"


def _ablation(profile: Profile, given: dict):
    networks_ = profile.contest(given["rival_seeds"])
    return networks_, protocols.ladder(given["eps_255"], steps=given["pgd_steps"])[1:], "test"


def _budgets(profile: Profile, given: dict):
    networks_ = profile.at_epochs(given["cost_seeds"]) + profile.at_cost(given["passes"], given["cost_seeds"])
    spent = {name: given[name] for name in ("long_steps", "queries")} | {"steps": given["pgd_steps"]}
    return networks_, [protocols.strongest(given["strong_eps_255"], **spent)], "test", given["strong_samples"]


def _maps(profile: Profile, given: dict):
    return profile.swept(), [_pgd(given, given["eps_255"])], "test"


def _lambda(profile: Profile, given: dict):
    subjects = profile.experiments("vanilla", seeds=given["seeds"]) + profile.sweep(
        given["lambdas"], given["seeds"], given["training"]
    )
    return subjects, [_pgd(given, given["eps_255"])], "validation"


def _variants_chosen(profile: Profile, given: dict):
    return _variants(profile, given), [_pgd(given, given["eps_255"])], "validation"


def _variants_judged(profile: Profile, given: dict):
    spent = {name: given[name] for name in ("long_steps", "queries")} | {"steps": given["pgd_steps"]}
    attacks_ = [_pgd(given, given["eps_255"]), protocols.strongest(given["eps_255"], **spent)]
    return _variants(profile, given), attacks_, "test"


def _variants(profile: Profile, given: dict) -> list[Experiment]:
    return profile.variants(**{name: given[name] for name in VARIED})


def _settings(profile: Profile, given: dict):
    settings = profile.settings(given["T"], given["taus"], full=given["full"])
    how = {name: given[name] for name in ("seeds", "epochs", "network")}
    spent = {name: given[name] for name in ("long_steps", "queries")} | {"steps": given["pgd_steps"]}
    attacks_ = [_pgd(given, given["eps_255"]), protocols.strongest(given["eps_255"], **spent)]
    return profile.in_settings(settings, given["lambdas"], **how), attacks_, "test"


def _settings_choice(profile: Profile, given: dict):
    subjects, (pgd, _), _ = _settings(profile, given)
    return subjects, [pgd], "validation"


def _pgd(given: dict, eps_255: float) -> Attack:
    return attacks.standard("pgd", eps_255 / 255, steps=given["pgd_steps"])


def _ratio(profile: Profile, given: dict):
    return profile.first(given["seeds"]), [_pgd(given, given["pgd_eps_255"])], "test"


def _climb(profile: Profile, given: dict):
    spent = {name: given[name] for name in ("gammas", "long_steps", "queries")} | {"steps": given["pgd_steps"]}

    def attacks_on(experiment: Experiment) -> list[AnyAttack]:
        source = profile.substitute(given["substitute"], experiment)
        return protocols.rungs(given["eps_255"], source=source, **spent)

    return profile.networks(given["checkpoints"], given["seeds"]), attacks_on, "test"


def _whitebox(profile: Profile, given: dict):
    networks_ = profile.networks(given["checkpoints"], given["seeds"])
    return networks_, protocols.released(given["eps_255"], given["steps"])[1:], "test"


def _blackbox(profile: Profile, given: dict):
    kinds = [(training, network) for training in given["substitutes"] for network in (None, given["other_network"])]

    def attacks_on(experiment: Experiment) -> list[AnyAttack]:
        sources = [profile.substitute(training, experiment, network) for training, network in kinds]
        spent = {"steps": given["pgd_steps"], "queries": given["queries"]}
        return protocols.black_box(given["eps_255"], sources=sources, **spent)[1:]

    return profile.networks(given["checkpoints"], given["seeds"]), attacks_on, "test"


def _widths(profile: Profile, given: dict):
    networks_ = profile.networks(given["checkpoints"], given["seeds"])
    return networks_, protocols.rules_at(given["eps_255"], given["gammas"], steps=given["pgd_steps"])[1:], "test"


def _expectations(profile: Profile, given: dict):
    subjects = profile.poisson(given["trainings"], given["seeds"], given["checkpoints"])
    return subjects, protocols.expectations(given["eps_255"], given["draws"], steps=given["pgd_steps"])[1:], "test"


def _checklist(profile: Profile, given: dict):
    spent = {name: given[name] for name in ("long_steps", "queries")} | {"steps": given["pgd_steps"]}

    def attacks_on(experiment: Experiment) -> list[AnyAttack]:
        source = profile.substitute(given["substitute"], experiment)
        return protocols.checklist(given["eps_255"], given["radii_255"], source=source, **spent).attacks[1:]

    return profile.networks(given["checkpoints"], given["seeds"]), attacks_on, "test"


def _random_on_events(profile: Profile, given: dict):
    spent = {"steps": given["pgd_steps"], "flip_steps": given["flip_steps"]}
    noise, attacked = protocols.random_on_events(given["eps_counts"], given["flips"], given["factors"], **spent)
    return profile.on_events().of(given["trainings"]), noise + attacked, "test"


def _on_events(profile: Profile, given: dict):
    spent = {"steps": given["pgd_steps"], "flip_steps": given["flip_steps"]}
    return (
        profile.on_events().of(given["trainings"]),
        protocols.on_events(given["eps_counts"], given["flips"], **spent)[1:],
        "test",
    )


def _worst_on_events(profile: Profile, given: dict):
    spent = {name: given[name] for name in ("long_steps", "queries", "flip_steps")} | {"steps": given["pgd_steps"]}
    worst = protocols.worst_on_events(given["strong_eps_counts"], given["strong_flips"], **spent)
    return profile.on_events().of(given["trainings"]), worst, "test", given["strong_samples"]

ASKED = {  # artifact or part: networks, attacks, part of the data, maybe how many, from profile and parameters
    "fig-random-vs-adversarial": _random_and_adversarial,
    "tab-ablation": _ablation,
    "tab-ablation/equal-cost": _budgets,
    "tab-cost": _budgets,
    "fig-attack-ladder": _climb,
    "tab-masking-checklist": _checklist,
    "tab-whitebox": _whitebox,
    "tab-blackbox": _blackbox,
    "fig-surrogate-width": _widths,
    "fig-timesteps-and-leak": _settings,
    "fig-timesteps-and-leak/choice": _settings_choice,
    "tab-poisson-eot": _expectations,
    "fig-gradient-maps": _maps,
    "fig-lambda": _lambda,
    "fig-sr-variants/choice": _variants_chosen,
    "fig-sr-variants": _variants_judged,
    "thm-ratio": _ratio,
    "tab-events": _on_events,
    "tab-events/worst": _worst_on_events,
    "fig-random-vs-adversarial-events": _random_on_events,
}
