"""What a GPU gives: every form of the neuron checked, steps timed, networks trained and judged, and one report.

    python benchmarks/gpu.py [--device cuda] [--minutes 10] [--images PATH] [--out build/gpu] [--tiny] [PART ...]

The parts are check, bench, train and judge; without one, all run.  The results of each are kept in OUT as JSON when it
ends, so that a run may be interrupted; OUT/REPORT.md is written from all that are there.  `--images` names a folder of
images or a zip of one; otherwise torchvision's CIFAR-10 is taken if it is under data/, else the digits of the library.
With `--tiny` everything is small: a rehearsal, which a CPU can do as well.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import paperlib

# isort: split
import torch
from bench import exponent, in_turns, ratio, spread
from rendering import PGD, SR, table
from steps import CASES, VARIANTS, Case, Limit, Subject

from paperlib import arithmetic, errors, executors, files, paths, profiles
from paperlib.networks import rules
from paperlib.networks.neurons import LIF, NormedLIF
from paperlib.store import checkpoints
from paperlib.store.experiment import Experiment
from paperlib.training import defenses, loop
from paperlib.training.defenses import Batch

TRAININGS = ("vanilla", "sr", "at", "at+sr")
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2}  # of gradients, relative to the largest
LOGITS = 1e-4  # of a whole network's logits and input gradients in float32, relative to the largest
SPIKES = 1e-3  # the share of spikes of a whole network that may differ: a membrane within rounding of its threshold
SIZES = {"small": Case("conv-32-64-64-128", T=4, batch=128), "VGG-11": Case("vgg11", T=8, batch=64)}
TINY = {"small": Case("conv-4-6", T=2, batch=4, size=8)}
REPETITIONS = 10
JELLY = "SJ_IF_CUDA_IMPLEMENTATION"  # SpikingJelly's choice of an implementation, read when it is imported
IMPLEMENTATIONS = ("torch", "triton")  # of SpikingJelly, on a GPU


def main() -> None:
    given = _arguments()
    checkpoints.resolve(given.device)  # refuses a device that is not here
    given.out.mkdir(parents=True, exist_ok=True)
    for part in given.parts or PARTS:
        print(f"{part} on {_card(given.device)}", flush=True)
        result = PARTS[part](given)
        files.write_atomically(given.out / f"{part}.json", (json.dumps(result, indent=1) + "\n").encode())
        files.write_atomically(given.out / "REPORT.md", report(given.out).encode())
    print(f"The report is {given.out / 'REPORT.md'}.")
    if any(row["agrees"] is False for row in _read(given.out, "check").get("rows", [])):
        sys.exit("Some forms do not agree with the CPU; see the report.")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], metavar="PART")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--minutes", type=float, default=10.0, help="of all trainings together")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--out", type=Path, default=Path("build/gpu"))
    parser.add_argument("--tiny", action="store_true")
    return parser.parse_args()


def _card(device: str) -> str:
    """What the numbers depend on besides the code."""
    if device == "cpu":
        return f"{arithmetic.processor()} (a CPU), torch {torch.__version__}"
    card = torch.cuda.get_device_properties(0)
    triton = version("triton") if find_spec("triton") else "none"
    size = f"{card.total_memory / 2**30:.0f} GiB, compute capability {card.major}.{card.minor}"
    return f"{card.name} ({size}), torch {torch.__version__}, triton {triton}"


# check ---------------------------------------------------------------------------------------------------------------


def check(given: argparse.Namespace) -> dict:
    """The layer in each form and whole networks, on the device against the CPU, on the same numbers."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # 32 bits, as on the CPU
    rows = [
        _layer_check(given.device, dtype, constant, pool, training, detach)
        for dtype in TOLERANCES
        for constant, pool, training, detach in itertools.product([False, True], repeat=4)
    ]
    cases = {"conv-4-6": Case("conv-4-6", 2, 4, size=8)} if given.tiny else {c.name: c for c in CASES.values()}
    rows += [_network_check(given.device, case) for case in cases.values()]
    return {"device": _card(given.device), "rows": rows}


def _layer_check(device: str, dtype, constant: bool, pool: bool, training: bool, detach: bool) -> dict:
    """BatchNorm, neuron and pool: how far its spikes and gradients are from those of the CPU."""
    torch.manual_seed(0)
    layer = NormedLIF(24, LIF(rules.triangle(), tau=0.9, detach_reset=detach), steps=6, pool=pool).train(training)
    x = (torch.randn(1 if constant else 6, 8, 24, 11, 9) * 0.7 + 0.5).to(dtype)
    weights = torch.randn(6, 8, 24, *((5, 4) if pool else (11, 9))).to(dtype)
    results = []
    for place in ("cpu", device):
        here, leaf = layer.to(place), x.to(place).requires_grad_()
        here.running_mean.fill_(0.4)
        spikes = here(leaf)
        grads = torch.autograd.grad((spikes * weights.to(place)).sum(), [leaf, here.weight, here.bias])
        results.append([values.detach().float().cpu() for values in (spikes, *grads)])
    (spikes, *grads), (there, *others) = results
    error = max(_relative(a, b) for a, b in zip(grads, others, strict=True))
    moved = (spikes != there).float().mean().item()
    form = [f"{dtype}".removeprefix("torch."), *(("one step",) if constant else ()), *(("pool",) if pool else ())]
    form += ["train" if training else "eval", *(("detached reset",) if detach else ())]
    agrees = error <= TOLERANCES[dtype] and moved <= SPIKES
    return {"what": ", ".join(form), "spikes": moved, "error": error, "tolerance": TOLERANCES[dtype], "agrees": agrees}


def _network_check(device: str, case: Case) -> dict:
    """A whole network in eval mode: logits and the input gradient of the loss."""
    subjects = [Subject(case, "float32", place) for place in ("cpu", device)]
    results = []
    for subject in subjects:
        leaf = subject.batch.images.clone().requires_grad_()
        logits = subject.network.eval()(leaf)
        loss = torch.nn.functional.cross_entropy(logits, subject.batch.labels)
        results.append([v.detach().cpu() for v in (logits, *torch.autograd.grad(loss, leaf))])
    # one spike that falls on the other side of its threshold moves a sample's logits, so samples are counted
    apart = [[_relative(a, b) for a, b in zip(*pair, strict=True)] for pair in zip(*results, strict=True)]
    errors_ = [max(sample) for sample in zip(*apart, strict=True)]
    share = sum(error > LOGITS for error in errors_) / len(errors_)
    name = f"{case.name}, logits and input gradient: share of samples beyond the tolerance"
    return {"what": name, "spikes": share, "error": min(errors_), "tolerance": LOGITS, "agrees": share <= 0.5}


def _relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference, relative to the largest value of `a`."""
    return ((a - b).abs().max() / a.abs().max().clamp_min(1e-30)).item()


# bench ---------------------------------------------------------------------------------------------------------------


def bench(given: argparse.Namespace) -> dict:
    """Steps of each variant in turns, with each implementation of SpikingJelly in a process of its own."""
    results = []
    for implementation in IMPLEMENTATIONS if given.device == "cuda" else IMPLEMENTATIONS[:1]:
        command = [sys.executable, __file__, "_bench", given.device, *(["--tiny"] if given.tiny else [])]
        done = subprocess.run(command, stdout=subprocess.PIPE, env=os.environ | {JELLY: implementation}, check=True)
        results.append({"SpikingJelly": implementation} | json.loads(done.stdout))
    return {"device": _card(given.device), "runs": results}


def measured(device: str, tiny: bool) -> dict:
    """Seconds and memory of the steps on a device, their growth, and the bound that memory and products set."""
    rates = _rates(device, tiny)
    cases = TINY if tiny else SIZES
    networks = {name: _steps(case, device) | _bound(case, device, rates) for name, case in cases.items()}
    growth = {name: _growth(case, device, tiny) for name, case in cases.items()}
    return {"rates": rates, "networks": networks, "growth": growth}


def _steps(case: Case, device: str) -> dict:
    seconds, memory = {}, {}
    variants = [v for v in VARIANTS if v != "bfloat16" or device == "cuda"]
    subjects = {variant: Subject(case, variant, device) for variant in variants}
    actions = {(SR, v): s.sr_step for v, s in subjects.items()} | {(PGD, v): s.pgd_step for v, s in subjects.items()}
    limit = Limit(subjects["float32"].network, subjects["float32"].batch.images)
    actions[SR, "limit"] = limit.sr_step
    turns = {key: (_waited(action, device), torch.get_num_threads()) for key, action in actions.items()}
    seconds = in_turns(turns, REPETITIONS if device == "cuda" else 1, case.name)
    for variant, subject in subjects.items():
        memory[variant] = _peak(subject.sr_step, device)
    return {
        "case": case._asdict(),
        "seconds": {op: {v: spread(s) for (o, v), s in seconds.items() if o == op} for op in (SR, PGD)},
        "ratios": {
            op: {v: ratio({v: s for (o, v), s in seconds.items() if o == op}, v, "float32")
                 for (o, v) in seconds if o == op and v != "float32"}
            for op in (SR, PGD)
        },
        "mb": memory,
    }  # fmt: skip


def _growth(case: Case, device: str, tiny: bool) -> dict:
    """Exponents of the seconds of our SR step in float32 as T and the batch grow."""
    factors, exponents = ((1, 2) if tiny else (1, 2, 4)), {}
    for axis in ("T", "batch"):
        sizes = [max(1, getattr(case, axis) // factors[-1]) * factor for factor in factors]
        subjects = {size: Subject(case._replace(**{axis: size}), "float32", device) for size in sizes}
        turns = {size: (_waited(s.sr_step, device), torch.get_num_threads()) for size, s in subjects.items()}
        seconds = in_turns(turns, 3, f"{case.name}: growth in {axis}")
        exponents[axis] = exponent(sizes, [spread(seconds[size])["median"] for size in sizes])
    return exponents


def _bound(case: Case, device: str, rates: dict) -> dict:
    """Bytes that the neurons' layers must move in an SR step, at the measured rate of the memory.

    Of a feature map X and its spikes S: statistics and forward, twice, 2X + S each; backward, three times, 5X + S each,
    as the second pass over the gradient reads x again (`neuron_triton`).
    """
    subject, moved = Subject(case, "float32", device), 0

    def count(layer, inputs, output):
        nonlocal moved
        moved += 4 * (19 * inputs[0].numel() + 5 * output.numel())

    hooks = [m.register_forward_hook(count) for m in subject.network.modules() if isinstance(m, NormedLIF)]
    subject.network.train()(subject.batch.images)
    for hook in hooks:
        hook.remove()
    return {"neuron_bytes": moved, "neuron_seconds": moved / rates["bytes_per_second"]}


def _rates(device: str, tiny: bool) -> dict:
    """Bytes a second of a copy (read and written), and operations a second of a matrix product in float32."""
    side = 256 if tiny else 8192
    a, b = (torch.rand(side, side, device=device) for _ in range(2))
    copied = _median(lambda: a.copy_(b), device)
    product = _median(lambda: a @ b, device)
    return {"bytes_per_second": 2 * 4 * side**2 / copied, "operations_per_second": 2 * side**3 / product}


def _median(action: Callable, device: str) -> float:
    waited, seconds = _waited(action, device), []
    for _ in range(6):
        started = time.perf_counter()
        waited()
        seconds.append(time.perf_counter() - started)
    return spread(seconds[1:])["median"]  # the first warms up


def _waited(action: Callable, device: str) -> Callable:
    """The action, and until the device has finished it."""
    if device == "cpu":
        return action

    def wait():
        action()
        torch.cuda.synchronize()

    return wait


def _peak(action: Callable, device: str) -> float | None:
    """The largest memory of the card during the action, in MB; None on a CPU (benchmarks/memory.py measures it)."""
    if device == "cpu":
        return None
    torch.cuda.reset_peak_memory_stats()
    action()
    return torch.cuda.max_memory_allocated() / 1e6


# train and judge -----------------------------------------------------------------------------------------------------


def train(given: argparse.Namespace) -> dict:
    """The four trainings side by side, for as many epochs as the minutes allow."""
    experiments, rows = _experiments(given), []
    started = time.perf_counter()
    executor = executors.local(len(experiments) if given.device == "cuda" else 1)
    checkpoints.train_all(experiments, executor=executor, device=given.device)
    for experiment in experiments:
        *_, last = map(json.loads, (experiment.folder / "history.jsonl").read_text().splitlines())
        rows.append({"training": experiment.defense, "key": experiment.key} | last)
    seconds = time.perf_counter() - started
    return {"device": _card(given.device), "data": experiments[0].data["name"], "seconds": seconds, "rows": rows}


def judge(given: argparse.Namespace) -> dict:
    """The trained networks under the attacks of `paperlib.judge`, at the radius of adversarial training."""
    experiments, rows = _experiments(given), []
    eps = experiments[TRAININGS.index("at")].options["eps"]
    for experiment in experiments:
        network, images = checkpoints.trained(experiment, device=given.device, progress=False), experiment.load_data()
        test = images.test.take(min(20 if given.tiny else 500, len(images.test)))
        budget = "quick" if given.tiny else "standard"
        judged = paperlib.judge(network, test.pixels(), test.labels, eps=eps, bounds=images.bounds, budget=budget)
        rows.append({"training": experiment.defense, "n": len(test), "attacks": judged.rows})
    return {"device": _card(given.device), "eps_255": eps * 255, "rows": rows}


def _experiments(given: argparse.Namespace) -> list[Experiment]:
    """The four trainings of the profile cifar, or of laptop on digits; the epochs are chosen once and kept."""
    source, kept = _images(given), given.out / "epochs.json"
    profile = profiles.load("cifar" if source else "laptop").computed(arithmetic.NATIVE)
    caps = {"train": 400, "validation": 100, "test": 100} if given.tiny else {}
    profile = replace(profile, data={"name": source or "mnist5k"} | caps)
    changes = {"network": "conv-4-6", "T": 2} if given.tiny else {}

    def of(epochs: int) -> list[Experiment]:
        return [e for name in TRAININGS for e in profile.experiments(name, seeds=[0], epochs=epochs, **changes)]

    if not kept.exists():
        seconds = sum(_seconds_of_an_epoch(experiment, given.device) for experiment in of(1))
        files.write_atomically(kept, json.dumps(max(1, int(60 * given.minutes / seconds))).encode())
    return of(json.loads(kept.read_text()))


def _images(given: argparse.Namespace) -> str | None:
    """The name of the image set, or None where there is none but the digits; a zip is unpacked under data/."""
    if given.images is None:
        return "cifar10" if (paths.ROOT / "data" / "cifar-10-batches-py").exists() else None
    if not given.images.exists():
        raise errors.Refused(f"--images {given.images} does not exist; name a folder of images, or a zip of one.")
    if given.images.is_dir():
        return f"folder:{given.images}"
    target = paths.ROOT / "data" / given.images.stem
    if not target.exists():
        with zipfile.ZipFile(given.images) as packed:
            packed.extractall(target.parent)
    return f"folder:{target.relative_to(paths.ROOT)}"


def _seconds_of_an_epoch(experiment: Experiment, device: str) -> float:
    """From a few steps on random images."""
    images, size = experiment.load_data(), experiment.schedule.batch_size
    step = loop.Step(experiment.build().train().to(device), defenses.build(experiment.defense, experiment.options),
                     experiment.schedule)  # fmt: skip
    x, y, index = next(images.train.to(device).batches(size))
    batch = Batch(x, y, index, images.bounds, seed=0)
    return _median(lambda: step.move(step.loss(batch)), device) * (len(images.train) // size)


# the report ----------------------------------------------------------------------------------------------------------


def report(out: Path) -> str:
    """The page, from the results that are there."""
    parts = ["# On a GPU", "Written by `make gpu`; every number is of the device that its part names."]
    for part, page in PAGES.items():
        if result := _read(out, part):
            parts += [f"## {part}", f"{result['device']}.", page(result)]
        else:
            parts += [f"## {part}", "Not run."]
    return "\n\n".join(parts) + "\n"


def _read(out: Path, part: str) -> dict:
    path = out / f"{part}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _check_page(result: dict) -> str:
    rows = [
        [row["what"], f"{100 * row['spikes']:.3g} %", f"{row['error']:.1e}", f"{row['tolerance']:.0e}",
         "yes" if row["agrees"] else "**no**"] for row in result["rows"]
    ]  # fmt: skip
    agreeing = sum(row["agrees"] for row in result["rows"])
    text = f"{agreeing} of {len(rows)} agree with the CPU. Errors are relative to the largest gradient.\n\n"
    return text + table(["form", "spikes or samples that differ", "error", "tolerance", "agrees"], rows)


def _bench_page(result: dict) -> str:
    parts = []
    for run in result["runs"]:
        rates = run["rates"]
        copied, product = rates["bytes_per_second"] / 1e9, rates["operations_per_second"] / 1e12
        parts.append(
            f"SpikingJelly's implementation: {run['SpikingJelly']}. Measured rates: {copied:,.0f} GB/s of a copy, "
            f"{product:.3g} Tflop/s of a product in float32."
        )
        rows = []
        for name, network in run["networks"].items():
            for step, seconds in network["seconds"].items():
                for variant, value in seconds.items():
                    times = network["ratios"][step].get(variant)
                    memory = network["mb"].get(variant) if step == SR else None
                    title = "bare products" if variant == "limit" else variant
                    over = f"{times['median']:.2f} ({times['min']:.2f} to {times['max']:.2f})" if times else "1"
                    cells = [f"{1e3 * value['median']:.3g} ms", over, f"{memory:,.0f}" if memory else ""]
                    rows.append([name, step, title, *cells])
        parts.append(table(["network", "step", "variant", "median", "time over ours, float32", "MB"], rows))
        for name, network in run["networks"].items():
            least = network["seconds"][SR]["limit"]["median"] + network["neuron_seconds"]
            share = least / network["seconds"][SR]["float32"]["median"]
            growth = ", ".join(f"{axis}^{value:.2f}" for axis, value in run["growth"][name].items())
            parts.append(
                f"{name}: bare products and the bytes of the neurons' layers at the rate of a copy take "
                f"{1e3 * least:.3g} ms, {100 * share:.0f} % of our SR step in float32. The step grows as {growth}."
            )
    return "\n\n".join(parts)


def _train_page(result: dict) -> str:
    rows = []
    for row in result["rows"]:
        validation, memory = f"{100 * row['validation_accuracy']:.1f} %", row.get("peak_mb")
        cells = [f"{row['loss']:.3f}", validation, f"{row['seconds']:.3g} s", f"{memory:,.0f}" if memory else ""]
        rows.append([row["training"], row["key"], str(row["epoch"]), *cells])
    titles = ["training", "experiment", "epochs", "loss", "validation accuracy", "last epoch", "MB"]
    text = f"Side by side, one network each, on {result['data']}: {result['seconds']:.0f} s in all.\n\n"
    return text + table(titles, rows)


def _judge_page(result: dict) -> str:
    rows = []
    for row in result["rows"]:
        for attack in row["attacks"]:
            accuracy, low, high = (f"{100 * attack[key]:.1f}" for key in ("accuracy", "low", "high"))
            cells = [f"{accuracy} % [{low}, {high}]", f"{attack['passes']:.0f}", "†" if attack["doubts"] else ""]
            rows.append([row["training"], attack["attack"], *cells])
    n, eps = result["rows"][0]["n"], result["eps_255"]
    text = f"One network each, {n} test images, radius {eps:.3g}/255; intervals are 95 % "
    return text + "over images.\n\n" + table(["training", "attack", "accuracy", "passes", "doubt"], rows)


PARTS = {"check": check, "bench": bench, "train": train, "judge": judge}
PAGES = {"check": _check_page, "bench": _bench_page, "train": _train_page, "judge": _judge_page}

if __name__ == "__main__":
    if sys.argv[1:2] == ["_bench"]:
        print(json.dumps(measured(sys.argv[2], "--tiny" in sys.argv)))
    else:
        try:
            main()
        except errors.Refused as refusal:
            sys.exit(str(refusal))
        except KeyboardInterrupt:
            sys.exit("\nInterrupted; the finished parts are kept, and the same command continues.")
