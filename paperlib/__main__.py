"""The command line: `python -m paperlib COMMAND`.  The Makefile calls it; `reproduce` works without make."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

from paperlib import errors, paths, records


def main() -> int:
    """Run one command; 0 if it did its work, 1 if something is missing or moved, 2 for bad input, 130 interrupted."""
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # to be terminated is to be interrupted
    try:
        if "profile" in arguments:
            errors.one_of("profile", arguments.profile, sorted(path.stem for path in paths.PARAMS.glob("*.yml")))
        if "artifact" in arguments:
            arguments.artifact = _by_path(arguments.artifact)
        if "jobs" in arguments:
            errors.count("jobs", arguments.jobs)
        return arguments.run(arguments) or 0
    except errors.Refused as problem:
        print(problem, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted. Finished networks, epochs and evaluations are kept; the same command goes on from there.")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m paperlib", description="The companion's command line.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name, run, *, profile=True, artifact=False, jobs=False, device=False):
        sub = commands.add_parser(name, help=run.__doc__.splitlines()[0], description=run.__doc__)
        sub.set_defaults(run=run)
        if artifact:
            sub.add_argument("artifact", help="a notebook's name, or the path of one of your own")
        if profile:
            sub.add_argument("--profile", default="laptop", help="a file under params/ (default: laptop)")
        if jobs:
            sub.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes side by side")
        if jobs or device:
            sub.add_argument("--device", default="auto", help="auto, cpu, cuda or mps, for training")
        return sub

    command("reproduce", reproduce, jobs=True)
    planning = command("plan", plan, device=True)
    planning.add_argument("notebooks", nargs="*", help="paths of notebooks of your own, planned beside the others")
    command("train", train, jobs=True)
    released = command("import-released", import_released, profile=False)
    released.add_argument("files", nargs="+", metavar="TRAINING=FILE", help="vanilla=, sr=, at= or at+sr= a state dict")
    released.add_argument("--network", required=True, help="vgg11 or wrn16")
    released.add_argument("--dataset", required=True, help="cifar10 or cifar100: what they were trained on")
    released.add_argument("--data", help="images to look at, as profiles name them (default: the data set)")
    command("restore", restore)
    command("keep", keep)
    command("run", run, artifact=True)
    command("draw", draw, artifact=True)
    command("report", report)
    command("compare", compare)
    command("publish", publish, profile=False, artifact=True)
    command("sync", sync, profile=False)
    command("check", check, profile=False)
    command("links", links, profile=False).add_argument("repo", help="owner/name on GitHub")
    return parser


def reproduce(arguments) -> int:
    """Everything of a profile: train, execute every notebook, draw, report."""
    from paperlib import profiles

    cost = profiles.load(arguments.profile).cost
    print(
        f"Profile {arguments.profile}: about {cost['minutes']} minutes on two cores, {cost['disk_mb']} MB of disk and "
        f"{cost['download_mb']} MB of download, after installation."
    )
    train(arguments)
    failed = []
    for arguments.artifact in paths.notebooks():
        try:
            run(arguments)
            draw(arguments)
        except errors.Refused as problem:
            print(problem, file=sys.stderr)
            failed.append(arguments.artifact)
    return max(report(arguments), 1 if failed else 0)


def plan(arguments) -> None:
    """Every training and evaluation of a profile, what is there, and what the rest costs on this machine."""
    from paperlib import profiles
    from paperlib.runs import costs
    from paperlib.runs import plan as plans
    from paperlib.store import checkpoints

    for path in arguments.notebooks:
        _by_path(path)
    total = 0.0
    for name in profiles.family(arguments.profile):
        profile = profiles.load(name)
        networks, evaluations = plans.experiments(profile), plans.planned(profile)
        there = sum(map(checkpoints.is_trained, networks)), sum(one.is_there for one in evaluations)
        print(f"{name}: {profile.title}.")
        print(f"  {there[0]} of {len(networks)} networks and {there[1]} of {len(evaluations)} evaluations are there.")
        bill = costs.bill(profile, arguments.device)
        for e, seconds in bill.trainings:
            print(f"  train {e} ({e.network}, {e.schedule.epochs} epochs): {costs.duration(seconds)}")
        alike: dict[str, list[float]] = {}
        for one, seconds in bill.evaluations:
            alike.setdefault(str(one), []).append(seconds)
        for what, seconds in alike.items():
            print(f"  evaluate {len(seconds)} networks, {what}: {costs.duration(sum(seconds))} at most")
        total += bill.seconds
    if total:
        print(f"In all {costs.duration(total)} on {checkpoints.resolve(arguments.device)}, by steps timed just now.")


def train(arguments) -> None:
    """Train every network of a profile that is missing."""
    from paperlib import profiles
    from paperlib.runs import plan
    from paperlib.store import checkpoints

    networks, prepare = plan.experiments(profiles.load(arguments.profile)), partial(plan.register, arguments.profile)
    checkpoints.train_all(networks, workers=arguments.jobs, device=arguments.device, prepare=prepare)


def import_released(arguments) -> None:
    """Take over networks that the released code trained, and write a profile that looks at them.

    Trainings for which no file is given are our own, by the recipe of the profile "paper".
    """
    from paperlib import profiles
    from paperlib.store import checkpoints

    name = f"released-{arguments.network}-{arguments.dataset}"
    files = {}
    for given in arguments.files:
        training, _, file = given.partition("=")
        errors.one_of("training", training, sorted(profiles.NEEDED))
        if not file or training in files:
            raise errors.Refused(f"{given!r} must be TRAINING=FILE, one file for each training.")
        files[training] = file
    data, trainings = {"name": arguments.data or arguments.dataset}, {}
    for training, file in files.items():
        imported = checkpoints.import_released(
            Path(file), arguments.network, arguments.dataset, defense=training, data=data
        )
        trainings[training] = {"imported": imported.sha256, "dataset": arguments.dataset}
        print(f"{file} is now {paths.shown(imported.folder)}.")
    print(f"{paths.shown(profiles.of_imported(name, arguments.network, data, trainings))} written.")
    print(f"Next: make reproduce PROFILE={name}, or one notebook: make tab-ablation PROFILE={name}")


def restore(arguments) -> None:
    """Take the networks that are kept with the results instead of training them."""
    from paperlib import profiles
    from paperlib.runs import plan
    from paperlib.store import checkpoints

    source = paths.RESULTS / arguments.profile / "networks"
    planned = plan.experiments(profiles.load(arguments.profile))
    print(f"{checkpoints.copy_networks(planned, source, paths.CHECKPOINTS)} of {len(planned)} networks restored.")


def keep(arguments) -> None:
    """Put a profile's networks with its results, to be committed."""
    from paperlib import profiles
    from paperlib.runs import plan
    from paperlib.store import checkpoints

    target = paths.RESULTS / arguments.profile / "networks"
    planned = plan.experiments(profiles.load(arguments.profile))
    shutil.rmtree(target, ignore_errors=True)  # of an older plan, or trained again since
    print(f"{checkpoints.copy_networks(planned, paths.CHECKPOINTS, target)} of {len(planned)} networks kept.")


def run(arguments) -> None:
    """Execute one notebook with a profile's parameters; a failed one leaves no record behind."""
    from paperlib import artifacts, profiles
    from paperlib.runs import execute

    errors.one_of("notebook", arguments.artifact, paths.notebooks())
    profile, artifact = profiles.load(arguments.profile), arguments.artifact
    record = _record(profile.name, artifact)
    parts = artifacts.parts(artifact) if artifacts.source(artifact) else {}
    output = paths.BUILD / profile.name / f"{artifact}.ipynb"
    try:
        execute.execute(artifact, profile.parameters(artifact), output, origin=profile.origin)
    except errors.Refused:
        figures = [paths.figure(profile.name, artifact, part) for part in parts]
        for stale in (record, record.with_suffix(".csv"), record.with_suffix(".run.json"), *figures):
            stale.unlink(missing_ok=True)
        raise


def draw(arguments) -> None:
    """Draw an artifact's figures from its record."""
    from paperlib import artifacts, modules

    path = _record(arguments.profile, arguments.artifact)
    if artifacts.source(arguments.artifact) or path.exists():  # a notebook that only teaches has neither
        record = records.load(path)
        for part in artifacts.parts(arguments.artifact):
            artifacts.save(record, paths.figure(arguments.profile, arguments.artifact, part), part)
    modules.keep(paths.BUILD / arguments.profile / f"{arguments.artifact}.drawn", drawing=True)


def report(arguments) -> int:
    """Write REPORT.md and REPORT.html from a profile's records."""
    import yaml

    from paperlib.artifacts import report

    title = yaml.safe_load((paths.PARAMS / f"{arguments.profile}.yml").read_text(encoding="utf-8"))["title"]
    gaps = report.write(arguments.profile, title)
    where = (paths.RESULTS / arguments.profile / "REPORT.md").relative_to(paths.ROOT)
    print(f"{where} (and .html) written" + (f", with gaps: {', '.join(gaps)}." if gaps else "."))
    return 1 if gaps else 0


def compare(arguments) -> int:
    """Hold this run's numbers against the committed ones."""
    from paperlib.artifacts.report import reading_order

    worst = 0
    for artifact in reading_order():
        path = _record(arguments.profile, artifact).relative_to(paths.ROOT)
        shown = subprocess.run(
            ["git", "show", f"HEAD:{path.as_posix()}"], cwd=paths.ROOT, capture_output=True, text=True
        )
        if shown.returncode:
            print(f"{artifact}: no committed record to compare with.")
            continue
        lines = records.compare(records.load(paths.ROOT / path), records.check(json.loads(shown.stdout)))
        counts = {status: sum(line["status"] == status for line in lines) for status in records.STATUSES}
        print(f"{artifact}: " + ", ".join(f"{n} {status}" for status, n in counts.items() if n))
        for line in lines:
            if line["status"] not in ("identical", "inside the interval", "timed"):
                worst = 1
                print(f"  {line['status']}: {line['row']}: mine {line['mine']}, committed {line['committed']}")
    return worst


def publish(arguments) -> None:
    """Put the outputs of an executed laptop notebook into its committed twin."""
    from paperlib.runs import twins

    print(twins.publish(arguments.artifact, paths.BUILD / "laptop" / f"{arguments.artifact}.ipynb"))


def sync(arguments) -> None:
    """Bring headers, twins and the README's badges in step with the sources."""
    from paperlib.runs import twins

    for path in twins.sync():
        print(path.relative_to(paths.ROOT))


def check(arguments) -> int:
    """Say which twins and headers are stale."""
    from paperlib.runs import twins

    stale = twins.stale()
    print("\n".join(stale) or "Every twin is in step with its source.")
    return 1 if stale else 0


def links(arguments) -> None:
    """Rewrite every link to the public repository."""
    from paperlib.runs import twins

    for path in twins.links(arguments.repo):
        print(path.relative_to(paths.ROOT))


def _by_path(artifact: str) -> str:
    """The name of a notebook; the folder of one that is given by path joins the folders of notebooks."""
    path = Path(artifact)
    if path.suffix != ".py":
        return artifact
    if not path.is_file():
        raise errors.Refused(f"There is no notebook {artifact}.")
    folders = [*os.environ.get(paths.FOLDERS, "").split(os.pathsep), str(path.resolve().parent)]
    os.environ[paths.FOLDERS] = os.pathsep.join(dict.fromkeys(filter(None, folders)))
    return path.stem


def _record(profile: str, artifact: str):
    return paths.RESULTS / profile / f"{artifact}.json"


if __name__ == "__main__":
    sys.exit(main())
