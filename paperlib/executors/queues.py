"""Clusters of a queueing system, by dask-jobqueue: a scheduler here, and batch jobs that bring the workers.

The settings of a batch job are the user's own, in ~/.config/dask/jobqueue.yaml.  Each worker has one thread.
"""

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from paperlib import arithmetic, paths
from paperlib.errors import Refused, count
from paperlib.executors.dask import refuse_missing
from paperlib.executors.sweep import say

KINDS = {"slurm": "SLURMCluster", "pbs": "PBSCluster"}  # the classes of dask_jobqueue
SCHEDULER = {
    "allowed-failures": 10,  # a job's workers that may be lost, for each end of a walltime counts
    "worker-saturation": 1.0,  # no training waits on a busy worker while another one is free
}
IDLE = 60  # seconds after which a worker without work gives its batch job back
MARGIN, STAGGER = 5, 4  # minutes: a worker ends by itself so long before its walltime, give or take


@contextmanager
def started(name: str, workers: int) -> Iterator[str]:
    """The address of a Dask scheduler whose workers, at most `workers`, a queueing system starts as they are needed.

    A worker that has ended is replaced.  `name` is one of `KINDS`.  Refused without the extra `cluster`, on a host that
    submits no batch jobs, and where the user's settings lack a job's cores or memory.
    """
    refuse_missing()
    count("jobs", workers)
    import dask
    import dask_jobqueue
    from distributed import Status

    kind, section = getattr(dask_jobqueue, KINDS[name]), f"jobqueue.{name}"
    command = kind.job_cls.submit_command
    if not shutil.which(command):
        raise Refused(f"The executor {name} needs the command {command}, which is not on this host's PATH.")
    dask.config.update_defaults({"distributed": {"scheduler": SCHEDULER}})  # the user's own settings stay
    settings = {key: dask.config.get(f"{section}.{key}") for key in ("cores", "memory", "walltime")}
    prologue = dask.config.get(f"{section}.job-script-prologue") or []
    arguments = dask.config.get(f"{section}.worker-extra-args") or []
    if not settings["cores"] or not settings["memory"]:
        where = "~/.config/dask/jobqueue.yaml (docs/cluster.md has an example)"
        raise Refused(f"The executor {name} needs a batch job's cores and memory under {section} in {where}.")
    if "--lifetime" not in arguments:
        arguments = [*arguments, *_lifetime(settings["walltime"])]
    options = {"processes": settings["cores"], "worker_extra_args": arguments}
    with kind(job_script_prologue=[*prologue, *exports()], **options) as cluster:
        try:
            cluster.worker_spec.update(cluster.new_worker_spec())
            cluster.sync(_submitted, cluster)
        except RuntimeError as problem:
            for job in cluster.workers.values():
                job.status = Status.closed  # it never began
            reason = str(problem).strip().splitlines()[-1]
            raise Refused(f"The executor {name} cannot submit a batch job: {reason}") from None
        say(f"{name}: at most {workers} workers, as they are needed; dashboard: {cluster.dashboard_link}")
        cluster.adapt(minimum=1, maximum=workers, target_duration="1ms", wait_count=IDLE)
        yield cluster.scheduler_address


async def _submitted(cluster) -> None:
    """Submit the first batch job, whose failure is told; those of later ones are only logged."""
    await cluster


def exports() -> list[str]:
    """Lines of a batch job's script: what this process's environment decides of numbers, memory and the package."""
    memory = {name: value for name, value in os.environ.items() if name.startswith("MALLOC_")}
    path = os.pathsep.join(filter(None, [str(paths.ROOT), os.environ.get("PYTHONPATH")]))
    values = arithmetic.settings(arithmetic.current()) | memory | {"PYTHONPATH": path}
    return [f"export {name}={shlex.quote(value)}" for name, value in values.items()]


def _lifetime(walltime: object) -> list[str]:
    """The worker's options that end it before "H:MM:SS" or "D-HH:MM:SS", which then counts as no failure of a job."""
    matched = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", str(walltime))  # YAML reads 01:00:00 without quotes as 3600
    if not matched:
        return []
    days, hours, minutes, _ = (int(part or 0) for part in matched.groups())
    minutes += 60 * (hours + 24 * days) - MARGIN
    return ["--lifetime", f"{minutes}m", "--lifetime-stagger", f"{STAGGER}m"] if minutes > STAGGER else []
