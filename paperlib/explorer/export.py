"""From keys or trainings to the explorer's file."""

from collections.abc import Sequence
from pathlib import Path

from paperlib import errors, files, paths, profiles
from paperlib.explorer import content, page
from paperlib.profiles import Profile
from paperlib.store import checkpoints
from paperlib.store.experiment import AnyExperiment, Opened


def export(profile: str, names: Sequence[str], out: Path) -> None:
    """Write the explorer of some trained networks to `out`.

    Each of `names` is the key of a network under checkpoints/, or a training of the profile, which stands for its
    network of the first seed.  Without names the page holds all trainings of the profile.  Refuses unknown names,
    networks that are not trained, networks that the engine cannot run, and networks on different data.
    """
    loaded = profiles.load(profile)
    experiments = [_experiment(loaded, name) for name in names or loaded.trainings]
    for experiment in experiments:
        content.refuse(experiment)
    content.refuse_mixture(experiments)
    for experiment in experiments:
        if not checkpoints.is_trained(experiment):
            raise errors.Refused(
                f"{experiment} is not trained yet; python -m paperlib train --profile {profile} trains it."
            )
    opened = [Opened(experiment, checkpoints.trained(experiment, device="cpu")) for experiment in experiments]
    files.write_atomically(out, page.page(content.of(opened)))


def _experiment(profile: Profile, name: str) -> AnyExperiment:
    """The experiment of a training of the profile, or of a key; its network is copied to checkpoints/ if it is kept."""
    trainings = profile.trainings | profile.rivals
    if name in trainings:
        experiment = profile.experiments(name)[0]
        checkpoints.copy_networks([experiment], paths.RESULTS / profile.name / "networks", paths.CHECKPOINTS)
        return experiment
    if not (paths.CHECKPOINTS / name / "checkpoint.json").exists():
        raise errors.Refused(
            f"{name!r} is neither the key of a network under {paths.shown(paths.CHECKPOINTS)} nor a training of "
            f"{profile.origin}, which are {', '.join(trainings)}."
        )
    return checkpoints.in_folder(name)
