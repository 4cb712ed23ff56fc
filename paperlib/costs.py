"""What a profile has still to do, and how long that takes on this machine, from steps that are timed here and now.

Nothing is downloaded, trained or evaluated: the steps run on random images of the right shape.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from tqdm import tqdm

from paperlib import attacks, datasets, defenses, events, experiments, images, networks, protocols, rules
from paperlib.attacks import Attack
from paperlib.attacks.core import in_batches, loss_gradient
from paperlib.claims import radius
from paperlib.defenses import Batch
from paperlib.evaluations import AnyAttack, Transfer, is_evaluated, members, size
from paperlib.experiments import Experiment, Imported
from paperlib.networks import Network
from paperlib.profiles import VARIED, Profile

BATCH = 8  # images in a timed step; time grows in proportion (benchmarks/README.md)
QUICK = 1.0  # seconds; a step that takes less is timed a second time, warm


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


@dataclass(frozen=True)
class Bill:
    """What is missing of a profile, each with its seconds on this machine; evaluations are bounded from above."""

    trainings: list[tuple[Experiment, float]]
    evaluations: list[tuple[Evaluation, float]]

    @property
    def seconds(self) -> float:
        return sum(seconds for _, seconds in (*self.trainings, *self.evaluations))


def bill(profile: Profile, device: str) -> Bill:
    """Time one step of each kind that is missing, on `device`."""
    stopwatch = _Stopwatch(profile, experiments.resolve(device))
    to_train = [e for e in profile.plan() if not experiments.is_trained(e) and isinstance(e, Experiment)]
    to_attack = [one for one in evaluations(profile) if not one.is_there]
    progress = tqdm(total=len(to_train) + len(to_attack), desc="timing one step of each kind", leave=False)
    result = Bill([], [])
    with progress:
        for e in to_train:
            result.trainings.append((e, stopwatch.training(e)))
            progress.update()
        for one in to_attack:
            result.evaluations.append((one, stopwatch.evaluation(one)))
            progress.update()
    return result


class _Outline(NamedTuple):
    """What a step's time depends on of the data."""

    sample: tuple[int, ...]  # shape of one
    classes: int
    train: int  # samples

    @classmethod
    def of(cls, data: dict) -> "_Outline":
        name = data["name"]
        if name in images.OUTLINES:
            channels, pixels, classes, train = images.OUTLINES[name]
            sample = (channels, pixels, pixels)
        elif name in events.KINDS:
            kind = events.KINDS[name]
            sample, classes, train = (data["T"], 2, kind.size, kind.size), kind.classes, kind.train
        else:
            there = datasets.load(**data)
            sample, classes, train = there.train.images.shape[1:], there.num_classes, len(there.train)
        return cls(sample, classes, min(train, data.get("train") or train))


class _Stopwatch:
    """Seconds of a profile's parts; equal steps are timed once."""

    def __init__(self, profile: Profile, device: str):
        self.profile, self.device, self.known = profile, device, {}
        self.outlines: dict[str, _Outline] = {}

    def training(self, e: Experiment) -> float:
        options = {name: value for name, value in e.options.items() if name != "lam"}
        kind = self._shape(e), e.defense, repr(options)
        if kind not in self.known:
            network, defense, batch = self._network(e).train(), defenses.build(e.defense, e.options), self._batch(e)
            optimiser = torch.optim.SGD(network.parameters(), lr=e.schedule.lr, momentum=0.9)

            def step():
                optimiser.zero_grad()
                defense.loss(network, batch).backward()
                optimiser.step()
                defenses.after_step(defense, network)

            self.known[kind] = self._seconds(step)
        steps = self._outline(e).train // e.schedule.batch_size
        return self.known[kind] * e.schedule.batch_size / BATCH * steps * e.schedule.epochs

    def evaluation(self, one: Evaluation) -> float:
        looks = [self._forward(one.experiment)]
        for member in members(one.attack):
            transferred = isinstance(member, Transfer)
            maker = member.source if transferred else one.experiment
            rule = (member.attack if transferred else member).rule
            looks.append(member.queries * self._forward(maker) + member.gradients * self._gradient(maker, rule))
        verdicts = max(len(looks) - 2, 0) * looks[0]  # a look after each attack but the first, which is counted
        return one.samples / BATCH * (sum(looks) + verdicts)

    def _forward(self, e: Experiment | Imported) -> float:
        kind = "forward", self._shape(e)
        if kind not in self.known:
            network, batch = self._network(e).eval(), self._batch(e)
            self.known[kind] = self._seconds(lambda: in_batches(network, batch.images, None))
        return self.known[kind]

    def _gradient(self, e: Experiment | Imported, rule: dict) -> float:
        kind = "gradient", self._shape(e), rule.get("name")
        if kind not in self.known:
            network, batch = self._network(e).eval(), self._batch(e)
            with network.backward_rule(**rule) if rule else nullcontext():
                self.known[kind] = self._seconds(lambda: loss_gradient(network, batch.images, batch.labels, None))
        return self.known[kind]

    def _outline(self, e: Experiment | Imported) -> _Outline:
        name = repr(e.data)
        if name not in self.outlines:
            self.outlines[name] = _Outline.of(e.data)
        return self.outlines[name]

    def _shape(self, e: Experiment | Imported) -> tuple:
        """What a pass's time depends on."""
        return e.network, getattr(e, "T", self.profile.network["T"]), self._outline(e).sample

    def _network(self, e: Experiment | Imported) -> Network:
        of, (name, T, (*_, channels, _, pixels)) = self.profile.network, self._shape(e)
        size = {"in_channels": channels, "image_size": pixels, "num_classes": self._outline(e).classes}
        neuron = {"T": T, "tau": getattr(e, "tau", of["tau"]), "rule": rules.build(of["rule"])}
        return networks.build(name, **size, **neuron, precision=of["precision"]).to(self.device)

    def _batch(self, e: Experiment | Imported) -> Batch:
        outline = self._outline(e)
        samples = torch.rand(BATCH, *outline.sample, device=self.device)
        labels = torch.arange(BATCH, device=self.device) % outline.classes
        return Batch(samples, labels, torch.arange(BATCH), (0.0, 1.0), seed=0)

    def _seconds(self, step: Callable[[], object]) -> float:
        for _ in range(2):
            started = time.perf_counter()
            step()
            if self.device == "cuda":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - started
            if seconds > QUICK:
                break
        return seconds


def duration(seconds: float) -> str:
    """In words, to two units at most."""
    seconds = round(seconds)
    for unit, length, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= length:
            whole, rest = divmod(seconds, length)
            return f"{whole} {unit} {rest // part} {smaller}"
    return f"{seconds} s"
