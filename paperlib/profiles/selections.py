"""Selections: functions that take a profile and return the experiments that a notebook works with."""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from paperlib import errors, networks, paths
from paperlib.networks import Network
from paperlib.profiles import files
from paperlib.profiles.profile import Profile
from paperlib.store import checkpoints
from paperlib.store.experiment import WEIGHTS, AnyExperiment, Experiment, Imported, weight_name
from paperlib.training import defenses, regularizers
from paperlib.training.loop import passes as passes_of


def load(profile: str, training: str, *, seed: int | None = None, device: str = "auto") -> Network:
    """A trained network of a profile, in eval mode: images (B, C, H, W) → logits (B, K).

    `profile` and `training` are names, `seed` is one of the profile's seeds, by default its first.  The network is read
    from checkpoints/, or from the networks that are kept with the results of the profile; if it is in neither, it is
    trained now.  `device` is "auto", "cpu", "cuda" or "mps".

    Refuses an unknown profile, training, seed or device, and an imported network that is not there.
    """
    loaded = files.load(profile)
    seed = loaded.seeds[0] if seed is None else seed
    errors.one_of(f"seed in {loaded.origin}", seed, loaded.seeds)
    (experiment,) = loaded.experiments(training, seeds=[seed])
    checkpoints.copy_networks([experiment], paths.RESULTS / profile / "networks", paths.CHECKPOINTS)
    return checkpoints.trained(experiment, device=device)


def first(profile: Profile, seeds: int) -> list[AnyExperiment]:
    """The first `seeds` networks of every training, or all if there are fewer."""
    errors.count("seeds", seeds)
    return [e for training in profile.trainings for e in profile.experiments(training)[:seeds]]


def chosen(profile: Profile, checkpoints_: Sequence[str], seeds: int) -> list[AnyExperiment]:
    """The networks in the named folders under checkpoints/; if none is named, the `first` ones."""
    if checkpoints_:
        return [checkpoints.in_folder(name) for name in checkpoints_]
    return first(profile, seeds)


def substitute(profile: Profile, training: str, target: AnyExperiment, network: str | None = None) -> AnyExperiment:
    """The network on which adversarial examples for `target` are made: one of `training` with another seed.

    `network` names another architecture.  An imported training has one network, whatever its seed; the substitute for
    that network itself is the first other network of the profile.
    """
    changes = {} if network is None else {"network": network}
    if isinstance(profile.experiments(training, **changes)[0], Imported):
        candidates = (e for name in (training, *profile.trainings) for e in profile.experiments(name))
        return next(e for e in candidates if e.key != target.key)
    later = [seed for seed in profile.seeds if seed > target.seed]
    seeds = later or [seed for seed in profile.seeds if seed != target.seed] or [target.seed + 1]
    return profile.experiments(training, seeds=seeds[:1], **changes)[0]


# ---- comparisons of trainings ------------------------------------------------------------------------------------


def contest(profile: Profile, rival_seeds: int) -> list[AnyExperiment]:
    """All networks of every training, then the first `rival_seeds` networks of every rival."""
    errors.count("rival_seeds", rival_seeds)
    return profile.all() + [e for rival in profile.rivals for e in profile.experiments(rival)[:rival_seeds]]


def recipes(profile: Profile) -> list[Experiment]:
    """One network of every training and rival, as it is trained here with the epochs of the profile.

    The options of imported trainings are not known, so these are left out, except vanilla, which has no options.
    """
    changes = {"seeds": profile.seeds[:1], "epochs": profile.schedule["epochs"]}
    experiments = []
    for training, options in (profile.trainings | profile.rivals).items():
        if training == "vanilla" or "imported" not in options:
            experiments += profile.experiments(training, **changes)
    return experiments


def at_epochs(profile: Profile, seeds: int) -> list[AnyExperiment]:
    """The first `seeds` networks of every training and rival, with the epochs of the file."""
    errors.count("seeds", seeds)
    return [e for name in (*profile.trainings, *profile.rivals) for e in profile.experiments(name)[:seeds]]


def at_cost(profile: Profile, passes: int, seeds: int) -> list[Experiment]:
    """The first `seeds` networks of every training and rival, trained for about `passes` passes an image.

    Forward and backward passes count alike.  Each training gets the number of epochs that comes closest, at least one
    after the warm-up.  Imported trainings are left out as in `recipes`.  With 0 passes there are no networks.
    """
    errors.count("passes", passes, at_least=0)
    if passes == 0:
        return []
    experiments = []
    for recipe in recipes(profile):
        passes_per_epoch = sum(passes_of(defenses.build(recipe.defense, recipe.options)))
        epochs = max(1 + recipe.schedule.warm_up, round(passes / passes_per_epoch))
        experiments += profile.experiments(recipe.defense, seeds=profile.seeds[:seeds], epochs=epochs)
    return experiments


# ---- sweeps ------------------------------------------------------------------------------------------------------


def sweep(profile: Profile, weights: list[float], seeds: list[int], training: str = "sr") -> list[Experiment]:
    """The networks of a training with each weight of its penalty, λ or β, with each seed."""
    given = (profile.trainings | profile.rivals).get(training, {})
    name = weight_name(given) or WEIGHTS[0]
    own = given.get(name)  # 3 and 3.0 are one weight, and as the file writes it, it is in the key of the file's network
    values = [own if weight == own else weight for weight in weights]
    return [e for value in values for e in profile.experiments(training, seeds=seeds, **{name: value})]


def sweeps(profile: Profile, weights: dict[str, list[float]], seeds: list[int]) -> dict[str, list[Experiment]]:
    """For each training of `weights` the networks of the same training without the penalty, then those of its sweep.

    Trainings that the profile does not have are left out.
    """
    known = profile.trainings | profile.rivals
    return {
        training: profile.experiments(baseline(training), seeds=seeds) + sweep(profile, values, seeds, training)
        for training, values in weights.items()
        if training in known and baseline(training) in known
    }


def baseline(training: str) -> str:
    """The same training without the penalty that is weighed: "at" of "at+sr", "vanilla" of "sr" and "l2"."""
    return training.removesuffix("+sr") if training.endswith("+sr") else "vanilla"


def swept(profile: Profile) -> list[AnyExperiment]:
    """All networks of every training, the costliest trainings first, and those of `fig-lambda`; each once."""
    experiments = [e for training in reversed(profile.trainings) for e in profile.experiments(training)]
    parameters = profile.parameters("fig-lambda")
    experiments += profile.experiments("vanilla", seeds=parameters["seeds"])
    experiments += sweep(profile, parameters["lambdas"], parameters["seeds"], parameters["training"])
    return once(experiments)


def matched(profile: Profile, weights: dict[str, list[float]], seeds: list[int]) -> list[Experiment]:
    """The networks of each training at each of its weights λ with each seed; none if the profile lacks a training."""
    if not weights.keys() <= (profile.trainings | profile.rivals).keys():
        return []
    return [e for training, lambdas in weights.items() for e in sweep(profile, lambdas, seeds, training)]


def variants(
    profile: Profile,
    forms: list[str],
    hs: list[float],
    square_lambdas: list[float],
    absolute_lambdas: list[float],
    *,
    seeds: list[int],
    epochs: int,
    network: str = "",
) -> list[Experiment]:
    """Vanilla networks, then SR in each of `forms`, and in the first form with each h of `hs`, at each λ; each once.

    `regularizers.named` explains the names of forms.  The λ depend on whether a form has the square or the absolute
    penalty.  All are trained for `epochs`.  `network` is that of the profile where it is "".  Without forms there are
    no networks.
    """
    if not forms:
        return []
    changes = {"seeds": seeds, "epochs": epochs} | ({"network": network} if network else {})
    lambdas = {"square": square_lambdas, "absolute": absolute_lambdas}
    parsed = [regularizers.named(form) for form in forms]
    experiments = profile.experiments("vanilla", **changes)
    for variant, options in [(variant, {}) for variant in parsed] + [(parsed[0], {"h": h}) for h in hs]:
        for lam in lambdas[variant.penalty]:
            experiments += profile.experiments("sr", axes=variant._asdict(), lam=lam, **options, **changes)
    return once(experiments)


class Setting(NamedTuple):
    """How the neurons of a network treat time, or that they are ReLUs, which have no time."""

    T: int  # steps
    tau: float  # leak
    detach_reset: bool = False
    ann: bool = False  # whether the neurons are ReLUs


def settings(profile: Profile, T: list[int], taus: list[float], *, full: bool) -> list[Setting]:
    """The setting of the profile, then others of T, τ and reset, then that of ReLUs; each once.

    With `full` the others are each T with each τ and each reset; otherwise each differs from the setting of the profile
    in one of the three.  In a single step neither leak nor reset changes anything, so a setting of one step has τ and
    reset of the profile.
    """
    base = Setting(profile.network["T"], float(profile.network["tau"]))
    if full:
        others = [Setting(steps, float(tau), detached) for steps, tau, detached in product(T, taus, (False, True))]
    else:
        others = [base._replace(T=steps) for steps in T] + [base._replace(tau=float(tau)) for tau in taus]
        others.append(base._replace(detach_reset=True))
    spiking = [setting if setting.T > 1 else base._replace(T=setting.T) for setting in (base, *others)]
    return list(dict.fromkeys([*spiking, Setting(1, 1.0, ann=True)]))


def in_settings(
    profile: Profile,
    settings_: list[Setting],
    lambdas: list[float],
    *,
    seeds: list[int],
    epochs: int,
    network: str = "",
) -> list[Experiment]:
    """Vanilla networks and SR networks at each λ in each setting, trained for `epochs`.

    `network` is that of the profile where it is "".  Without a λ there are no networks.
    """
    if not lambdas:
        return []
    experiments, network = [], network or profile.network["name"]
    for setting in settings_:
        changes = {"T": setting.T, "tau": setting.tau, "detach_reset": setting.detach_reset}
        changes |= {"network": networks.ANN + network if setting.ann else network, "seeds": seeds, "epochs": epochs}
        experiments += profile.experiments("vanilla", **changes)
        experiments += [e for lam in lambdas for e in profile.experiments("sr", lam=lam, **changes)]
    return experiments


def poisson(
    profile: Profile, trainings: list[str], seeds: int, checkpoints_: Sequence[str] = ()
) -> list[AnyExperiment]:
    """The networks in the named folders; if none is named, the first `seeds` of some trainings with Poisson input."""
    if checkpoints_:
        return [checkpoints.in_folder(name) for name in checkpoints_]
    changes = {"seeds": profile.seeds[:seeds], "network": networks.POISSON + profile.network["name"]}
    return [e for training in trainings for e in profile.experiments(training, **changes)]


def once(experiments: list[AnyExperiment]) -> list[AnyExperiment]:
    """Each experiment once, in the order of first appearance."""
    return list({e.key: e for e in experiments}.values())
