"""The command line: `python -m paperlib COMMAND`.  The Makefile calls it; `reproduce` does its work without make.

The commands import what they need when they run: the profile decides the arithmetic, which must be settled before numpy
and torch are imported, and the quick commands need not wait for torch.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

from paperlib import arithmetic, errors, executors, paths, processes

MACHINES = 1_000_000  # workers that a plan is made for at most


def main() -> int:
    """Run one command and return its exit status.

    0: it did its work; 1: something is missing or differs; 2: it refused its input; 130: it was interrupted, which a
    termination, a closed terminal and the end of the make that called it are as well.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a terminal of ASCII alone shows λ as ?
    arguments = _parser().parse_args()
    for ending in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):  # Windows has no SIGHUP
        if signal.getsignal(ending) != signal.SIG_IGN:  # which nohup sets
            signal.signal(ending, signal.default_int_handler)
    processes.follow_make()
    try:
        if "profile" in arguments:
            from paperlib.profiles import reading

            errors.one_of("profile", arguments.profile, reading.names())
            arithmetic.settle(reading.arithmetic_of(arguments.profile))
        if "artifact" in arguments:
            arguments.artifact = _name(arguments.artifact)
            errors.one_of("notebook", arguments.artifact, paths.notebooks())
        if "jobs" in arguments:
            errors.count("jobs", arguments.jobs)
        if "scheduler" not in arguments:
            return arguments.run(arguments) or 0
        options = {"workers": arguments.jobs, "scheduler": arguments.scheduler}
        with executors.chosen(arguments.executor, **options) as arguments.executor:
            return arguments.run(arguments) or 0
    except errors.Refused as problem:
        print(problem, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        with suppress(OSError):  # the terminal may be gone
            kept = "Finished networks, epochs and evaluations are kept; the same command goes on from there."
            print(f"\nInterrupted. {kept}", flush=True)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m paperlib", description="The companion's command line.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name, run, *, profile=True, artifact=False, jobs=False, device=False, executor=False):
        sub = commands.add_parser(name, help=run.__doc__.splitlines()[0], description=run.__doc__)
        sub.set_defaults(run=run)
        if artifact:
            sub.add_argument("artifact", help="a notebook's name, or the path of one of your own")
        if profile:
            sub.add_argument("--profile", default="laptop", help="a file under params/ (default: laptop)")
        if jobs or executor:
            sub.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes or workers side by side")
        if device:
            sub.add_argument("--device", default="auto", help="auto, cpu, cuda or mps, for training")
        if executor:
            sub.add_argument("--executor", default=executors.LOCAL, help=f"{', '.join(executors.NAMES)}: where it runs")
            sub.add_argument("--scheduler", default="", help="the address of the scheduler, for the executor dask")
        return sub

    command("reproduce", reproduce, device=True, executor=True)
    of_plan = command("plan", plan, device=True)
    of_plan.add_argument("notebooks", nargs="*", help="paths of notebooks of your own, which are planned as well")
    of_plan.add_argument("--machines", type=int, help="say what so many workers like this one would take")
    command("train", train, device=True, executor=True)
    command("evaluate", evaluate, device=True, executor=True)
    of_cluster = command("cluster", cluster, jobs=True)
    of_cluster.add_argument("--executor", required=True, help=f"the queueing system: {', '.join(executors.QUEUES)}")
    of_cluster.add_argument("command", nargs="+", metavar="COMMAND", help="after --, such as: make reproduce")
    of_import = command("import-released", import_released, profile=False)
    of_import.add_argument(
        "files", nargs="+", metavar="TRAINING=FILE", help="a state dict for vanilla, sr, at or at+sr"
    )
    of_import.add_argument("--network", required=True, help="vgg11 or wrn16")
    of_import.add_argument("--dataset", required=True, help="cifar10 or cifar100, on which they were trained")
    of_import.add_argument("--data", help="images to evaluate on, as profiles name them (default: the data set)")
    command("restore", restore)
    command("keep", keep)
    command("run", run, artifact=True, executor=True)
    command("draw", draw, artifact=True)
    command("report", report)
    command("verify", verify)
    command("compare", compare).add_argument("--all", action="store_true", help="list every number that differs")
    command("certificate", certificate)
    of_explorer = command("export-explorer", export_explorer)
    of_explorer.add_argument(
        "networks",
        nargs="*",
        metavar="KEY",
        help="a key of a network, or a training of the profile (default: its four)",
    )
    of_explorer.add_argument("--out", type=Path, help="the HTML file to write")
    command("site", site)
    command("publish", publish, profile=False, artifact=True)
    command("sync", sync, profile=False)
    command("check", check, profile=False)
    command("links", links, profile=False).add_argument("repo", help="owner/name on GitHub")
    return parser


def reproduce(arguments) -> int:
    """Build everything of a profile: train, evaluate, execute every notebook, draw, report."""
    from paperlib import profiles

    cost = profiles.load(arguments.profile).cost
    print(
        f"Profile {arguments.profile}: about {cost['minutes']} minutes on two cores, {cost['disk_mb']} MB of disk and "
        f"{cost['download_mb']} MB of download, after installation."
    )
    train(arguments)
    try:
        evaluate(arguments)
    except errors.Refused as problem:  # the notebooks that need what failed fail as well, and are named
        print(problem, file=sys.stderr)
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
    """List every training and evaluation of a profile that is missing, with its time on this machine."""
    for path in arguments.notebooks:
        errors.one_of("notebook", _name(path), paths.notebooks())
    if arguments.machines is not None:
        errors.count("MACHINES", arguments.machines, at_most=MACHINES)
    progress = partial(print, file=sys.stderr, flush=True)
    progress(f"Loading torch for the profile {arguments.profile} ...")
    from paperlib import profiles
    from paperlib.runs import costs
    from paperlib.runs import plan as plans
    from paperlib.store import checkpoints

    bills = []
    for name in profiles.family(arguments.profile):
        profile = profiles.load(name)
        print(f"{name}: {profile.title}.", flush=True)
        progress("  Reading what its notebooks ask for ...")
        asked = plans.of(profile)
        trained = sum(checkpoints.is_trained(experiment) for experiment in asked.networks)
        evaluated = sum(planned.is_there for planned in asked.evaluations)
        print(
            f"  {trained} of {len(asked.networks)} networks and {evaluated} of {len(asked.evaluations)} evaluations "
            "are there.",
            flush=True,
        )
        bill = costs.bill(asked, arguments.device)
        for experiment, seconds in bill.trainings:
            described = f"{experiment} ({experiment.network}, {experiment.schedule.epochs} epochs)"
            print(f"  train {described}: {costs.duration(seconds)}")
        groups: dict[str, list[float]] = {}  # description of an evaluation → seconds of each network
        for planned, seconds in bill.evaluations:
            groups.setdefault(str(planned), []).append(seconds)
        for described, seconds in groups.items():
            print(f"  evaluate {len(seconds)} networks, {described}: {costs.duration(sum(seconds))} at most")
        bills.append(bill)
    total = sum(bill.seconds for bill in bills)
    if total:
        print(f"In all {costs.duration(total)} on {checkpoints.resolve(arguments.device)}, by steps timed just now.")
    if total and arguments.machines:
        print(costs.shared(bills, arguments.machines))


def train(arguments) -> None:
    """Train every network of a profile that is missing."""
    from paperlib import modules, profiles, stamps
    from paperlib.runs import plan
    from paperlib.store import checkpoints

    networks = plan.of(profiles.load(arguments.profile)).networks
    prepare = partial(plan.register, arguments.profile)  # a worker knows nothing of what the notebooks register
    checkpoints.train_all(networks, executor=arguments.executor, device=arguments.device, prepare=prepare)
    stamp = paths.BUILD / arguments.profile / "trained"
    modules.keep(stamp, drawing=False)
    stamps.write(stamp, [experiment.folder / "checkpoint.json" for experiment in networks])


def evaluate(arguments) -> None:
    """Compute every evaluation of a profile that is missing, large ones in parts."""
    from paperlib import profiles
    from paperlib.runs import evaluate, plan

    prepare = partial(plan.register, arguments.profile)
    planned = plan.of(profiles.load(arguments.profile))
    evaluate.evaluate_all(planned, executor=arguments.executor, device=arguments.device, prepare=prepare)


def cluster(arguments) -> int:
    """Start a cluster of a queueing system, run a command of make on it, and end the cluster.

    The command's last arguments are EXECUTOR=dask and SCHEDULER=ADDRESS.
    """
    from paperlib.executors import queues

    errors.one_of("queueing system", arguments.executor, executors.QUEUES)
    flags, dashes, variables = os.environ.get("MAKEFLAGS", "").partition(" -- ")
    flags = re.sub(r" ?(-j\d*|--jobserver-[\w-]+=\S+)", "", flags)  # the jobs of a make that cannot reach its own
    with queues.started(arguments.executor, arguments.jobs) as address:
        command = [*arguments.command, f"EXECUTOR={executors.DASK}", f"SCHEDULER={address}"]
        return subprocess.run(command, env=os.environ | {"MAKEFLAGS": flags + dashes + variables}).returncode


def import_released(arguments) -> None:
    """Import networks that the released code trained, and write a profile for them.

    Trainings without a file are trained here, by the recipe of the profile "paper".
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
    """Copy the networks that are kept with the results to checkpoints/, instead of training them."""
    from paperlib import profiles
    from paperlib.runs import plan
    from paperlib.store import checkpoints

    source = paths.RESULTS / arguments.profile / "networks"
    planned = plan.of(profiles.load(arguments.profile)).networks
    print(f"{checkpoints.copy_networks(planned, source, paths.CHECKPOINTS)} of {len(planned)} networks restored.")


def keep(arguments) -> None:
    """Copy a profile's trained networks to its results, where they can be committed.

    Networks there that the plan does not name are removed; those that are not trained here stay.
    """
    from paperlib import profiles
    from paperlib.runs import plan
    from paperlib.store import checkpoints

    target = paths.RESULTS / arguments.profile / "networks"
    planned = plan.of(profiles.load(arguments.profile)).networks
    kept_elsewhere = {one.key for one in planned if not checkpoints.is_trained(one)}
    for folder in target.glob("*"):
        if folder.name not in kept_elsewhere:
            shutil.rmtree(folder)
    print(f"{checkpoints.copy_networks(planned, paths.CHECKPOINTS, target)} of {len(planned)} networks kept.")


def run(arguments) -> None:
    """Execute one notebook with a profile's parameters; if it fails, remove its record and figures.

    torch is loaded by the notebook alone, which checks the profile.  On a cluster one of its workers executes it.
    """
    sys.modules["rfc3987_syntax"] = None  # else jsonschema builds a grammar of URLs with it, which takes a second
    from paperlib import stamps
    from paperlib.executors.machine import Local
    from paperlib.profiles import reading
    from paperlib.runs import execute

    profile, artifact = arguments.profile, arguments.artifact
    record, output = _record(profile, artifact), paths.BUILD / profile / f"{artifact}.ipynb"
    make_notebook = partial(execute.execute, origin=reading.origin(profile))
    given = artifact, reading.parameters_of(profile, artifact), output
    try:
        if isinstance(arguments.executor, Local):
            make_notebook(*given)
        else:
            arguments.executor.run(make_notebook, {f"{profile}-{artifact}": given})
    except errors.Refused:
        from paperlib import artifacts, files  # it loads Matplotlib

        parts = artifacts.parts(artifact) if artifacts.source(artifact) else ()
        files.remove(record, record.with_suffix(".csv"), record.with_suffix(".run.json"))
        files.remove(*(paths.figure(profile, artifact, part) for part in parts))
        raise
    made = (output, record, record.with_suffix(".csv"))
    stamps.write(output.with_suffix(".done"), filter(Path.exists, made))  # not every notebook has a record


def draw(arguments) -> None:
    """Draw an artifact's figures from its record."""
    from paperlib import artifacts, modules, records, stamps

    profile, artifact = arguments.profile, arguments.artifact
    path, figures = _record(profile, artifact), []
    if artifacts.source(artifact) or path.exists():  # a notebook without an artifact has no module and no record
        record = records.load(path)
        for part in artifacts.parts(artifact):
            figures.append(paths.figure(profile, artifact, part))
            artifacts.save(record, figures[-1], part)
    stamp = paths.BUILD / profile / f"{artifact}.drawn"
    modules.keep(stamp, drawing=True)
    stamps.write(stamp, figures)


def report(arguments) -> int:
    """Write REPORT.md and REPORT.html from a profile's records."""
    from paperlib import stamps
    from paperlib.artifacts import report
    from paperlib.profiles import reading

    content = reading.content_of(arguments.profile)
    title = content.get("title", arguments.profile) if isinstance(content, dict) else arguments.profile
    gaps = report.write(arguments.profile, title)
    ending = f", with gaps: {', '.join(gaps)}." if gaps else "."
    written = [paths.RESULTS / arguments.profile / f"REPORT.{end}" for end in ("md", "html")]
    print(f"{paths.shown(written[0])} (and .html) written{ending}")
    if not gaps:
        stamps.write(paths.BUILD / arguments.profile / "report", written)
    return 1 if gaps else 0


def verify(arguments) -> None:
    """Remove the stamps of Make whose files are gone or have changed, so that these are made again."""
    from paperlib import stamps

    for sentence in stamps.remove_false(arguments.profile):
        print(sentence)


def compare(arguments) -> int:
    """Compare this run with the committed one: verdicts, statements, numbers and figures.

    The exit status is 0 where every verdict is equal and the numbers outside the committed intervals are no more than
    chance explains, else 1.  Where portable arithmetic is not exact, the verdicts alone decide.
    """
    from paperlib.artifacts import comparison
    from paperlib.artifacts.report import reading_order

    names = reading_order()
    compared = comparison.of(arguments.profile, names)
    if compared is None:
        raise errors.Refused(f"No run of profile {arguments.profile} is committed here; there is nothing to compare.")
    print(compared.first_line(), *compared.differences(arguments.all), sep="\n")
    if foreign := comparison.not_made_here(arguments.profile, names):
        print(f"{len(foreign)} of {len(names)} records came with the checkout: no run in it has made them.")
    print(compared.last_line())
    return 1 if compared.failures() else 0


def certificate(arguments) -> int:
    """Compare this run with the committed one, and write what comes out as a page and as codecheck.yml."""
    from paperlib.artifacts import certificate
    from paperlib.artifacts.report import reading_order

    compared, page, configuration = certificate.write(arguments.profile, reading_order())
    print(f"{compared.first_line()}\n{compared.last_line()}")
    print(
        f"{paths.shown(page)} and {paths.shown(configuration)} written; {certificate.GAP} marks what you must fill in."
    )
    return 1 if compared.failures() else 0


def export_explorer(arguments) -> None:
    """Write a page that runs trained networks and attacks on them in a browser.

    A KEY is that of a trained network, which names its folder under checkpoints/, or a training of the profile, which
    stands for its network of the first seed.  Without one the page holds all trainings of the profile.
    """
    from paperlib import explorer

    given = arguments.networks
    folder = paths.BUILD / "own" if given else paths.FIGURES / arguments.profile
    out = arguments.out or folder / "explorer.html"
    explorer.export(arguments.profile, given, out)
    print(f"{paths.shown(out)} written ({out.stat().st_size // 1000} kB); open it in a browser.")


def site(arguments) -> None:
    """Write the site to build/site: notebooks, verdicts, records and docstrings, for the committed profiles.

    Another profile, if it is given, comes first.
    """
    from paperlib import site
    from paperlib.artifacts import summary

    committed = [name for name in summary.PROFILES if (paths.RESULTS / name).is_dir()]
    site.build(list(dict.fromkeys([arguments.profile, *committed])))
    print(f"{paths.shown(site.SITE / 'index.html')} written; a browser opens it without a server.")


def publish(arguments) -> None:
    """Copy the outputs of a notebook that was executed with the profile "laptop" to its committed twin."""
    from paperlib.runs import twins

    print(twins.publish(arguments.artifact, paths.BUILD / "laptop" / f"{arguments.artifact}.ipynb"))


def sync(arguments) -> None:
    """Bring headers, twins and README's tables of verdicts and notebooks up to date."""
    from paperlib.runs import twins

    for path in twins.sync():
        print(path.relative_to(paths.ROOT))


def check(arguments) -> int:
    """Print which headers, twins and tables of README are not up to date, and which committed numbers disagree.

    A worst case that another attack undercuts is printed, and is no error: attacks may grow stronger.
    """
    from paperlib.artifacts import consistency, report, summary
    from paperlib.runs import twins

    stale = twins.stale()
    print("\n".join(stale) or "Every twin is up to date.")
    contradictions = []
    for profile in summary.PROFILES:
        found = report.found_in(profile)
        contradictions += consistency.two_values(found)
        for problem in consistency.disagreements(found):
            print(f"{profile}: {problem}")
    return 1 if stale or contradictions else 0


def links(arguments) -> None:
    """Replace the address of the public repository in every file that names it."""
    from paperlib.runs import twins

    for path in twins.links(arguments.repo):
        print(path.relative_to(paths.ROOT))


def _name(notebook: str) -> str:
    """The name of a notebook that is given by name or by path; a path's folder is added to the folders of notebooks."""
    path = Path(notebook)
    if path.suffix != ".py":
        return notebook
    if not path.is_file():
        raise errors.Refused(f"There is no notebook {notebook}.")
    folders = [*os.environ.get(paths.FOLDERS, "").split(os.pathsep), str(path.resolve().parent)]
    os.environ[paths.FOLDERS] = os.pathsep.join(dict.fromkeys(filter(None, folders)))  # for kernels and workers, too
    return path.stem


def _record(profile: str, artifact: str) -> Path:
    return paths.RESULTS / profile / f"{artifact}.json"


if __name__ == "__main__":
    sys.exit(main())
