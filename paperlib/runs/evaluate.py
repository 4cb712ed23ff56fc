"""All missing evaluations of a plan, as jobs of an executor: large ones are divided by samples."""

from collections.abc import Callable
from functools import partial

from paperlib import errors
from paperlib.attacks import evaluation
from paperlib.executors import Executor
from paperlib.runs.plan import Plan, Planned
from paperlib.store import checkpoints, evaluations

PART = evaluation.CHUNK  # samples in a job at most


def evaluate_all(
    plan: Plan, *, executor: Executor, device: str = "auto", prepare: Callable | None = None, size: int = PART
) -> None:
    """Compute the missing evaluations of `plan` by an executor, in processes of one thread each.

    First every network is evaluated on clean samples, for attacks are made on those that it gets right.  Then a job
    takes `size` neighbouring samples of an evaluation at most, through all members of an ensemble; what it has found
    joins the others' in the file of each attack, so an interrupted call goes on where it was.  `size` should be a
    multiple of `evaluation.BATCH` (see `evaluations.evaluate_part`).  Each process first calls `prepare`.

    Refuses networks that are not trained.
    """
    untrained = [str(experiment) for experiment in plan.networks if not checkpoints.is_trained(experiment)]
    if untrained:
        first = f"python -m paperlib train --profile {plan.profile.name}"
        raise errors.Refused(f"{len(untrained)} networks are not trained yet, such as {untrained[0]}; first: {first}")
    device, missing = checkpoints.resolve(device), [planned for planned in plan.evaluations if not planned.is_there]
    there = len(plan.evaluations) - len(missing)
    print(f"{len(plan.evaluations)} evaluations: {there} there already, {len(missing)} to compute.", flush=True)
    clean = [planned for planned in missing if planned.attack is None]
    attacks = sorted((planned for planned in missing if planned.attack is not None), key=_cost, reverse=True)
    for stage in (clean, attacks):
        jobs, titles = {}, {}
        for planned in stage:
            for part in parts(planned, size):
                key = f"{planned.key}-{part.start}"
                jobs[key] = planned, part, device
                titles[key] = f"{planned.experiment}: {planned}"
                if len(part) < planned.samples:
                    titles[key] += f", {part.start} to {part.stop - 1}"
        if jobs:
            executor.run(_evaluate, jobs, titles=titles, prepare=partial(checkpoints.start_worker, prepare))


def parts(planned: Planned, size: int = PART) -> list[range]:
    """The places of the samples in each job of an evaluation; clean samples, a single pass, are not divided."""
    n = planned.samples
    return [range(n)] if planned.attack is None else [range(i, min(i + size, n)) for i in range(0, n, size)]


def _cost(planned: Planned) -> int:
    """The passes of an evaluation through its network if every sample is attacked to the last step.

    The longest come first, so that in the end no worker waits for one of them; and with them the parts of one network,
    of which no other job then needs the same flags at the same time.
    """
    return (2 * planned.attack.gradients + planned.attack.queries) * min(planned.samples, PART)


def _evaluate(planned: Planned, part: range, device: str) -> None:
    subset = {"samples": planned.samples, "split": planned.split}
    evaluations.evaluate_part(planned.experiment, planned.attack, part, **subset, device=device)
