"""A profile: the networks that a file under params/ describes, and which of them each notebook asks for."""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from itertools import product
from typing import Any

from paperlib import errors, paths
from paperlib.networks import architectures
from paperlib.profiles import parameters
from paperlib.profiles.selections import VARIED, Setting
from paperlib.store.experiment import Experiment, Imported
from paperlib.training import defenses, loop, regularizers
from paperlib.training.loop import Schedule

SCHEDULE = {f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(Schedule)}  # whether needed
LENGTHS = {  # notebook parameters that no sign belongs to
    *("eps_255", "pgd_eps_255", "radii_255", "reach_255", "scale_eps_255", "strong_eps_255"),
    *("lambdas", "gammas", "scales", "steps", "thresholds", "tolerance"),
    *("square_lambdas", "absolute_lambdas", "hs", "taus"),
    *("eps_counts", "strong_eps_counts"),
}


@dataclass(frozen=True)
class Profile:
    """One file under params/; its keys are these fields, and `base` for a profile whose entries it takes over."""

    name: str
    title: str  # one line, shown in reports
    cost: dict  # minutes on two cores, disk_mb, download_mb: said before anything starts
    data: dict  # arguments of `datasets.load`
    network: dict  # name, T, tau, rule, precision
    schedule: dict  # fields of `loop.Schedule`
    trainings: dict[str, dict]  # defense → its options; lengths in pixels may be given as `<name>_255`
    seeds: list[int]
    events: dict  # the entries that `ON_EVENTS` names once more, for the notebooks on event data
    notebooks: dict[str, dict]  # artifact → parameters that differ from the notebook's own
    rivals: dict[str, dict] = field(default_factory=dict)  # more trainings, which tab-ablation and tab-cost compare

    @property
    def origin(self) -> str:
        return f"params/{self.name}.yml"

    def on_events(self) -> "Profile":
        """This profile on event data: what stands under `events` in place of the entries of those names."""
        return replace(self, **self.events, rivals={})

    def parameters(self, artifact: str) -> dict[str, Any]:
        """All parameters of a notebook in this profile, checked against what the notebook declares."""
        declared = parameters.declared(paths.NOTEBOOKS / f"{artifact}.py")
        given = self.notebooks.get(artifact, {}) | {"profile": self.name}
        values = parameters.check(artifact, declared, given, origin=self.origin)
        for name in LENGTHS & set(values):
            for value in values[name] if isinstance(values[name], list) else [values[name]]:
                errors.number(f"{self.origin}: {artifact}'s {name}", value, at_least=0)
        return values

    def experiments(
        self, training: str, *, seeds: list[int] | None = None, **changes: Any
    ) -> list[Experiment] | list[Imported]:
        """One experiment a seed for a training or rival of this profile; `changes` override what it says.

        They are `network` (a name), `T`, `tau` and `detach_reset`, fields of the schedule, and options of the defense.
        A training may itself set a field of the schedule among its options.  One that is imported has one network,
        whatever the seeds; with changes it is one of our own.
        """
        known = self.trainings | self.rivals
        errors.one_of(f"training in {self.origin}", training, known)
        given = _in_pixels(known[training])
        if "imported" in given and not changes:
            return [Imported(given["imported"], self.network["name"], given["dataset"], training, self.data)]
        given = {name: value for name, value in given.items() if name not in ("imported", "dataset")} | changes
        network = {name: given.pop(name) for name in ("network", "T", "tau", "detach_reset") if name in given}
        schedule = self.schedule | {name: given.pop(name) for name in SCHEDULE if name in given}
        selection = schedule.get("selection", {})  # what is no table is refused by the schedule
        schedule["selection"] = _in_pixels(selection) if isinstance(selection, dict) else selection
        own = {"network": self.network["name"]} | {name: v for name, v in self.network.items() if name != "name"}
        return [
            Experiment(
                data=self.data,
                **own | network,
                defense=training,
                options=given,
                schedule=Schedule(**schedule),
                seed=seed,
            )
            for seed in (self.seeds if seeds is None else seeds)
        ]

    def of(self, trainings: list[str]) -> list[Experiment | Imported]:
        """Some trainings with every seed."""
        return [e for name in trainings for e in self.experiments(name)]

    def all(self) -> list[Experiment | Imported]:
        """Every training with every seed."""
        return self.of([*self.trainings])

    def first(self, seeds: int) -> list[Experiment | Imported]:
        """Of every training the first `seeds` networks, or as many as there are."""
        errors.count("seeds", seeds)
        return [e for training in self.trainings for e in self.experiments(training)[:seeds]]

    def weight(self, training: str) -> float:
        """The λ of a training or rival in this profile; NaN where that is not known."""
        return (self.trainings | self.rivals).get(training, {}).get("lam", float("nan"))

    def contest(self, rival_seeds: int) -> list[Experiment | Imported]:
        """Every training with every seed, and of every rival the first `rival_seeds` networks."""
        errors.count("rival_seeds", rival_seeds)
        return self.all() + [e for rival in self.rivals for e in self.experiments(rival)[:rival_seeds]]

    def recipes(self) -> list[Experiment]:
        """Of every training and rival one network as it is trained here.

        An imported one's options are not known, and it is left out; vanilla has none.
        """
        known = self.trainings | self.rivals
        ours = [name for name, given in known.items() if name == "vanilla" or "imported" not in given]
        own = {"seeds": self.seeds[:1], "epochs": self.schedule["epochs"]}
        return [e for name in ours for e in self.experiments(name, **own)]

    def at_epochs(self, seeds: int) -> list[Experiment | Imported]:
        """The first `seeds` networks of every training and rival, each with its epochs."""
        errors.count("seeds", seeds)
        return [e for name in (*self.trainings, *self.rivals) for e in self.experiments(name)[:seeds]]

    def at_cost(self, passes: int, seeds: int) -> list[Experiment]:
        """The first `seeds` networks of every training and rival, trained for about `passes` passes an image.

        Forward and backward passes count alike; each takes the number of epochs that comes closest, one at least after
        the warm-up.  Imported trainings are left out as in `recipes`.  Where `passes` is 0 there are none.
        """
        errors.count("passes", passes, at_least=0)
        found = []
        for one in self.recipes() if passes else []:
            each = sum(loop.passes(defenses.build(one.defense, one.options)))
            epochs = max(1 + one.schedule.warm_up, round(passes / each))
            found += self.experiments(one.defense, seeds=self.seeds[:seeds], epochs=epochs)
        return found

    def sweep(self, lambdas: list[float], seeds: list[int], training: str = "sr") -> list[Experiment]:
        """Networks of a training over λ."""
        return [e for lam in lambdas for e in self.experiments(training, seeds=seeds, lam=lam)]

    def variants(
        self,
        variants: list[str],
        hs: list[float],
        square_lambdas: list[float],
        absolute_lambdas: list[float],
        *,
        seeds: list[int],
        epochs: int,
        network: str = "",
    ) -> list[Experiment]:
        """SR in each of `variants` over the λ of its penalty, the first with each of `hs` as well, after vanilla ones.

        A variant is named as `regularizers.named` has it.  All are trained for `epochs`; `network` is the profile's own
        where it is "".  Without variants there are none.
        """
        how = {"seeds": seeds, "epochs": epochs} | ({"network": network} if network else {})
        forms = [regularizers.named(words) for words in variants]
        found = self.experiments("vanilla", **how) if forms else []
        for form, own in [*((form, {}) for form in forms), *((form, {"h": h}) for form in forms[:1] for h in hs)]:
            for lam in {"square": square_lambdas, "absolute": absolute_lambdas}[form.penalty]:
                found += self.experiments("sr", axes=form._asdict(), lam=lam, **own, **how)
        return list({e.key: e for e in found}.values())

    def settings(self, T: list[int], taus: list[float], *, full: bool) -> list[Setting]:
        """The profile's own setting first, then others of T, τ and reset, at last the twin without spikes.

        The others differ from the own in one thing each, or `full`y: each T with each τ and each reset.  Of one step
        neither leak nor reset changes anything, so there is one such setting, whose τ and reset are the own.
        """
        own = Setting(self.network["T"], float(self.network["tau"]))
        single = [own._replace(T=steps) for steps in T] + [own._replace(tau=float(tau)) for tau in taus]
        single.append(own._replace(detach_reset=True))
        grid = [Setting(steps, float(tau), detached) for steps, tau, detached in product(T, taus, (False, True))]
        spiking = [s if s.T > 1 else own._replace(T=s.T) for s in (own, *(grid if full else single))]
        return list(dict.fromkeys([*spiking, Setting(1, 1.0, ann=True)]))

    def in_settings(
        self, settings: list[Setting], lambdas: list[float], *, seeds: list[int], epochs: int, network: str = ""
    ) -> list[Experiment]:
        """Vanilla and SR at each λ in each setting, trained for `epochs`; without a λ there are none.

        `network` is the profile's own where it is "".
        """
        found, network = [], network or self.network["name"]
        for setting in settings if lambdas else []:
            how = setting._asdict()
            how |= {"network": architectures.ANN * how.pop("ann") + network, "seeds": seeds, "epochs": epochs}
            found += self.experiments("vanilla", **how)
            found += [e for lam in lambdas for e in self.experiments("sr", lam=lam, **how)]
        return found

    def swept(self) -> list[Experiment | Imported]:
        """Every training with every seed, and what `fig-lambda` sweeps; each once, the costliest trainings first."""
        found = [e for name in reversed(self.trainings) for e in self.experiments(name)]
        asked = self.parameters("fig-lambda")
        found += self.experiments("vanilla", seeds=asked["seeds"])
        found += self.sweep(asked["lambdas"], asked["seeds"], asked["training"])
        return list({e.key: e for e in found}.values())

    def poisson(self, trainings: list[str], seeds: int, checkpoints: Sequence[str] = ()) -> list[Experiment]:
        """The first `seeds` networks of some trainings with Poisson input, or the named folders under checkpoints/."""
        network = architectures.POISSON + self.network["name"]
        own = [e for name in trainings for e in self.experiments(name, seeds=self.seeds[:seeds], network=network)]
        return [checkpoints.opened(name) for name in checkpoints] or own

    def substitute(
        self, training: str, target: Experiment | Imported, network: str | None = None
    ) -> Experiment | Imported:
        """A separately trained network that examples for `target` can be made on: of another seed, whatever else.

        `network` names another architecture.  Where the profile imports `training` there is one network of it; for that
        itself it is the first other one.
        """
        changes = {} if network is None else {"network": network}
        if isinstance(self.experiments(training, **changes)[0], Imported):
            return next(
                e for name in (training, *self.trainings) for e in self.experiments(name) if e.key != target.key
            )
        later = [seed for seed in self.seeds if seed > target.seed]
        seeds = later or [seed for seed in self.seeds if seed != target.seed] or [target.seed + 1]
        return self.experiments(training, seeds=seeds[:1], **changes)[0]

    def networks(self, checkpoints: list[str], seeds: int) -> list[Experiment | Imported]:
        """What a notebook looks at: the named folders under checkpoints/, or of every training the first `seeds`."""
        return [checkpoints.opened(name) for name in checkpoints] or self.first(seeds)

    def plan(self) -> list[Experiment | Imported]:
        """Every network that the profile's notebooks ask for, each once, the costliest trainings first."""

        def substitutes(given: dict) -> list[Experiment | Imported]:
            return [self.substitute(given["substitute"], e) for e in self.first(given["seeds"])]

        def budgets(given: dict) -> list[Experiment | Imported]:
            return self.at_epochs(given["cost_seeds"]) + self.at_cost(given["passes"], given["cost_seeds"])

        asked = {
            "tab-ablation": lambda given: self.contest(given["rival_seeds"]) + budgets(given),
            "tab-cost": budgets,
            "fig-timesteps-and-leak": lambda given: self.in_settings(
                self.settings(given["T"], given["taus"], full=given["full"]),
                given["lambdas"],
                **{name: given[name] for name in ("seeds", "epochs", "network")},
            ),
            "fig-sr-variants": lambda given: self.variants(**{name: given[name] for name in VARIED}),
            "tab-poisson-eot": lambda given: self.poisson(given["trainings"], given["seeds"]),
            "tab-events": lambda given: self.on_events().of(given["trainings"]),
            "fig-random-vs-adversarial-events": lambda given: self.on_events().of(given["trainings"]),
            "fig-attack-ladder": substitutes,
            "tab-masking-checklist": substitutes,
            "tab-blackbox": lambda given: [
                self.substitute(name, e, network)
                for name in given["substitutes"]
                for network in (None, given["other_network"])
                for e in self.first(given["seeds"])
            ],
        }
        there = [name for name in asked if (paths.NOTEBOOKS / f"{name}.py").exists()]
        planned = self.swept() + [e for name in there for e in asked[name](self.parameters(name))]
        return list({e.key: e for e in planned}.values())


def _in_pixels(options: dict) -> dict:
    """`eps_255: 32` → `eps: 32/255`."""
    lengths = {key: value for key, value in options.items() if key.endswith("_255")}
    for key, value in lengths.items():
        errors.number(key, value, at_least=0)
        if key.removesuffix("_255") in options:
            raise errors.Refused(f"{key} and {key.removesuffix('_255')} are one length; give one of them.")
    return {key: value for key, value in options.items() if key not in lengths} | {
        key.removesuffix("_255"): value / 255 for key, value in lengths.items()
    }
