"""Which networks of a profile a notebook looks at: plain functions from a profile to experiments."""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from paperlib import errors, networks, paths
from paperlib.networks import Network
from paperlib.profiles import files
from paperlib.profiles.profile import Profile
from paperlib.store import checkpoints
from paperlib.store.experiment import Experiment, Imported
from paperlib.training import defenses, regularizers
from paperlib.training.loop import passes as passes_of

AnyExperiment = Experiment | Imported


def load(profile: str, training: str, *, seed: int | None = None, device: str = "auto") -> Network:
    """The trained network of a profile in eval mode: images (B, C, H, W) → logits (B, K).

    `seed` is one of the profile's, by default its first.  The network comes from checkpoints/, else from those that
    are kept with the results; without either it is trained now.
    """
    opened = files.load(profile)
    seed = opened.seeds[0] if seed is None else seed
    errors.one_of(f"seed in {opened.origin}", seed, opened.seeds)
    (experiment,) = opened.experiments(training, seeds=[seed])
    checkpoints.copy_networks([experiment], paths.RESULTS / profile / "networks", paths.CHECKPOINTS)
    return checkpoints.trained(experiment, device=device)


def first(profile: Profile, seeds: int) -> list[AnyExperiment]:
    """Of every training the first `seeds` networks, or as many as there are."""
    errors.count("seeds", seeds)
    return [e for training in profile.trainings for e in profile.experiments(training)[:seeds]]


def chosen(profile: Profile, checkpoints_: Sequence[str], seeds: int) -> list[AnyExperiment]:
    """The networks in the named folders under checkpoints/; without any, of every training the first `seeds`."""
    return [checkpoints.in_folder(name) for name in checkpoints_] or first(profile, seeds)


def substitute(profile: Profile, training: str, target: AnyExperiment, network: str | None = None) -> AnyExperiment:
    """A separately trained network that examples for `target` can be made on: of another seed, whatever else.

    `network` names another architecture.  Where the profile imports `training` there is one network of it; for that
    itself it is the first other one.
    """
    changes = {} if network is None else {"network": network}
    if isinstance(profile.experiments(training, **changes)[0], Imported):
        candidates = (e for name in (training, *profile.trainings) for e in profile.experiments(name))
        return next(e for e in candidates if e.key != target.key)
    later = [seed for seed in profile.seeds if seed > target.seed]
    seeds = later or [seed for seed in profile.seeds if seed != target.seed] or [target.seed + 1]
    return profile.experiments(training, seeds=seeds[:1], **changes)[0]


# ---- trainings against each other --------------------------------------------------------------------------------


def contest(profile: Profile, rival_seeds: int) -> list[AnyExperiment]:
    """Every training with every seed, and of every rival the first `rival_seeds` networks."""
    errors.count("rival_seeds", rival_seeds)
    return profile.all() + [e for rival in profile.rivals for e in profile.experiments(rival)[:rival_seeds]]


def recipes(profile: Profile) -> list[Experiment]:
    """Of every training and rival one network as it is trained here.

    An imported one is left out, as its options are not known; vanilla has none.
    """
    known = profile.trainings | profile.rivals
    ours = [name for name, given in known.items() if name == "vanilla" or "imported" not in given]
    changes = {"seeds": profile.seeds[:1], "epochs": profile.schedule["epochs"]}
    return [e for name in ours for e in profile.experiments(name, **changes)]


def at_epochs(profile: Profile, seeds: int) -> list[AnyExperiment]:
    """The first `seeds` networks of every training and rival, each with its epochs."""
    errors.count("seeds", seeds)
    return [e for name in (*profile.trainings, *profile.rivals) for e in profile.experiments(name)[:seeds]]


def at_cost(profile: Profile, passes: int, seeds: int) -> list[Experiment]:
    """The first `seeds` networks of every training and rival, trained for about `passes` passes an image.

    Forward and backward passes count alike; each takes the number of epochs that comes closest, one at least after the
    warm-up.  Imported trainings are left out as in `recipes`.  Where `passes` is 0 there are none.
    """
    errors.count("passes", passes, at_least=0)
    experiments = []
    for one in recipes(profile) if passes else []:
        each = sum(passes_of(defenses.build(one.defense, one.options)))
        epochs = max(1 + one.schedule.warm_up, round(passes / each))
        experiments += profile.experiments(one.defense, seeds=profile.seeds[:seeds], epochs=epochs)
    return experiments


# ---- sweeps ------------------------------------------------------------------------------------------------------


def sweep(profile: Profile, lambdas: list[float], seeds: list[int], training: str = "sr") -> list[Experiment]:
    """Networks of a training over λ."""
    return [e for lam in lambdas for e in profile.experiments(training, seeds=seeds, lam=lam)]


def swept(profile: Profile) -> list[AnyExperiment]:
    """Every training with every seed, and the networks of `fig-lambda`; each once, the costliest trainings first."""
    experiments = [e for name in reversed(profile.trainings) for e in profile.experiments(name)]
    asks = profile.parameters("fig-lambda")
    experiments += profile.experiments("vanilla", seeds=asks["seeds"])
    experiments += sweep(profile, asks["lambdas"], asks["seeds"], asks["training"])
    return once(experiments)


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
    """SR in each of `forms` over the λ of its penalty, the first with each of `hs` as well, after vanilla ones.

    A form is named as `regularizers.named` has it.  All are trained for `epochs`; `network` is the profile's own where
    it is "".  Without forms there are none.
    """
    changes = {"seeds": seeds, "epochs": epochs} | ({"network": network} if network else {})
    variants_ = [regularizers.named(words) for words in forms]
    experiments = profile.experiments("vanilla", **changes) if variants_ else []
    lambdas = {"square": square_lambdas, "absolute": absolute_lambdas}
    for form, other in [*((form, {}) for form in variants_), *((form, {"h": h}) for form in variants_[:1] for h in hs)]:
        for lam in lambdas[form.penalty]:
            experiments += profile.experiments("sr", axes=form._asdict(), lam=lam, **other, **changes)
    return once(experiments)


class Setting(NamedTuple):
    """How a network's neurons treat time: steps, leak and reset; or that they are ReLUs, which have no time."""

    T: int
    tau: float
    detach_reset: bool = False
    ann: bool = False


def settings(profile: Profile, T: list[int], taus: list[float], *, full: bool) -> list[Setting]:
    """The profile's own setting first, then others of T, τ and reset, at last the twin without spikes.

    The others differ from the own in one thing each, or `full`y: each T with each τ and each reset.  Of one step
    neither leak nor reset changes anything, so there is one such setting, whose τ and reset are the own.
    """
    own = Setting(profile.network["T"], float(profile.network["tau"]))
    single = [own._replace(T=steps) for steps in T] + [own._replace(tau=float(tau)) for tau in taus]
    single.append(own._replace(detach_reset=True))
    grid = [Setting(steps, float(tau), detached) for steps, tau, detached in product(T, taus, (False, True))]
    spiking = [s if s.T > 1 else own._replace(T=s.T) for s in (own, *(grid if full else single))]
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
    """Vanilla and SR at each λ in each setting, trained for `epochs`; without a λ there are none.

    `network` is the profile's own where it is "".
    """
    experiments, network = [], network or profile.network["name"]
    for setting in settings_ if lambdas else []:
        changes = {"T": setting.T, "tau": setting.tau, "detach_reset": setting.detach_reset}
        changes |= {"network": networks.ANN + network if setting.ann else network, "seeds": seeds, "epochs": epochs}
        experiments += profile.experiments("vanilla", **changes)
        experiments += [e for lam in lambdas for e in profile.experiments("sr", lam=lam, **changes)]
    return experiments


def poisson(
    profile: Profile, trainings: list[str], seeds: int, checkpoints_: Sequence[str] = ()
) -> list[AnyExperiment]:
    """The first `seeds` networks of some trainings with Poisson input, or the named folders under checkpoints/."""
    network = networks.POISSON + profile.network["name"]
    ours = [e for name in trainings for e in profile.experiments(name, seeds=profile.seeds[:seeds], network=network)]
    return [checkpoints.in_folder(name) for name in checkpoints_] or ours


def once(experiments: list[AnyExperiment]) -> list[AnyExperiment]:
    """Each experiment once, in order of first appearance."""
    return list({e.key: e for e in experiments}.values())
