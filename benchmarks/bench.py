"""Time and memory of our networks, of two rivals, and of the bare products.

    python benchmarks/bench.py

Prints the tables and writes results.json, results.png and the tables of the README.  The variants take turns
(A B A B ...), so that a slow moment of the machine slows all of them; ratios are taken within a repetition.  All files
are written at the end, so the run may be interrupted.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rendering
import torch
from rendering import PGD, SR
from steps import CASES, VARIANTS, Case, Limit, Subject, fast_bfloat16
from tqdm import tqdm

from paperlib import arithmetic, files

HERE = Path(__file__).parent
REPETITIONS = {"small": 9, "VGG-11": 4}  # after one that warms up
GROWTH_REPETITIONS = 3
SIZES = {  # (T, batch) by axis
    "small": {"T": [(T, 8) for T in (1, 2, 4, 8, 16)], "batch": [(4, batch) for batch in (8, 16, 32, 64)]},
    "VGG-11": {"T": [(T, 8) for T in (1, 2, 4, 8)], "batch": [(4, batch) for batch in (8, 16)]},
}
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "4000000000"}  # as in the Makefile
LAPTOP_REPETITIONS = 100
ALLOCATORS = {"make's": MALLOC, "glibc's own": {}}


def main() -> None:
    variants = [v for v in VARIANTS if v != "bfloat16" or fast_bfloat16()]
    threads = sorted({1, torch.get_num_threads()})
    results = {"machine": machine(), "times": [], "memory": [], "growth": []}
    for network in CASES:
        for allocator in ALLOCATORS:
            results["memory"].append(memory(network, variants, allocator))
    results["laptop"] = laptop(LAPTOP_REPETITIONS)
    for network in CASES:
        results["times"] += times(network, variants, threads)
    for network in CASES:
        results["growth"] += growth(network)
    files.write_atomically(HERE / "results.json", (json.dumps(results, indent=1) + "\n").encode())
    rendering.save_figure(results, HERE / "results.png")
    page = rendering.page(results)
    rendering.into_page(page, HERE / "README.md", "results")
    print(page)


def machine() -> dict:
    """What the numbers depend on besides the code."""
    return {
        "processor": arithmetic.processor(),
        "arithmetic": arithmetic.current(),
        "cores": torch.get_num_threads(),
        "bfloat16": fast_bfloat16(),
        "torch": torch.__version__,
        "malloc": {name: os.environ.get(name) for name in MALLOC},
    }


def times(network: str, variants: list[str], threads: list[int]) -> list[dict]:
    """Seconds of an SR step and a PGD step of each variant, of the bare products, and their ratios."""
    subjects = {variant: Subject(CASES[network], variant) for variant in variants}
    actions = {(SR, variant): subject.sr_step for variant, subject in subjects.items()}
    actions[SR, "limit"] = Limit(subjects["float32"].network, subjects["float32"].batch.images).sr_step
    actions |= {(PGD, variant): subject.pgd_step for variant, subject in subjects.items()}
    turns = {(*key, count): (action, count) for count in threads for key, action in actions.items()}
    seconds = in_turns(turns, REPETITIONS[network], f"{network}: time")
    return [
        summary(network, operation, count, {v: s for (o, v, c), s in seconds.items() if (o, c) == (operation, count)})
        for operation in (SR, PGD)
        for count in threads
    ]


def in_turns(turns: dict[tuple, tuple[Callable, int]], repetitions: int, title: str) -> dict[tuple, list[float]]:
    """Seconds of each action with its number of threads, once in every repetition; the first round is not counted."""
    seconds, threads = {key: [] for key in turns}, torch.get_num_threads()
    with tqdm(total=(repetitions + 1) * len(turns), desc=title) as progress:
        for _ in range(repetitions + 1):
            for key, (action, count) in turns.items():
                torch.set_num_threads(count)
                started = time.perf_counter()
                action()
                seconds[key].append(time.perf_counter() - started)
                progress.update()
    torch.set_num_threads(threads)
    return {key: values[1:] for key, values in seconds.items()}


def summary(network: str, operation: str, threads: int, seconds: dict[str, list[float]]) -> dict:
    """The times of one operation by variant, and every ratio of two variants."""
    return {
        "network": network,
        "operation": operation,
        "threads": threads,
        "repetitions": len(seconds["stepping"]),
        "seconds": {variant: spread(values) for variant, values in seconds.items()},
        "ratios": {f"{a} / {b}": ratio(seconds, a, b) for a in seconds for b in seconds if a != b},
    }


def ratio(seconds: dict[str, list[float]], a: str, b: str) -> dict[str, float]:
    """Time of `a` over time of `b`, taken within each repetition."""
    return spread([x / y for x, y in zip(seconds[a], seconds[b], strict=True)])


def spread(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest value."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def memory(network: str, variants: list[str], allocator: str) -> dict:
    """Peak memory of an SR training step of each variant, and the size of weights, gradients and momentum, in MB."""
    case, progress = CASES[network], tqdm(variants, f"{network}: memory, {allocator} allocator")
    measured = {variant: in_fresh_process(network, variant, case, ALLOCATORS[allocator]) for variant in progress}
    weights = sum(p.numel() for p in Subject(case, "float32").network.parameters())
    return {
        "network": network,
        "allocator": allocator,
        "mb": {variant: sizes["peak"] for variant, sizes in measured.items()},
        "parameters_mb": 3 * 4 * weights / 1e6,
    }


def in_fresh_process(network: str, variant: str, case: Case, allocator: dict[str, str]) -> dict[str, float]:
    """The result of memory.py: peak and rest, in MB."""
    command = [sys.executable, str(HERE / "memory.py"), network, variant, str(case.T), str(case.batch)]
    env = {name: value for name, value in os.environ.items() if name not in MALLOC} | allocator
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env).stdout)


def laptop(repetitions: int) -> dict[str, float]:
    """The result of laptop.py with portable arithmetic and make's allocator: median seconds of each step."""
    command = [sys.executable, str(HERE / "laptop.py"), str(repetitions)]
    env = os.environ | MALLOC | arithmetic.settings(arithmetic.PORTABLE)
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env).stdout)


def growth(network: str) -> list[dict]:
    """Time and memory of our SR step in float32 as T and the batch grow."""
    cases = {
        size: CASES[network]._replace(T=size[0], batch=size[1])
        for size in sorted(set(sum(SIZES[network].values(), [])))
    }
    subjects = {size: Subject(case, "float32") for size, case in cases.items()}
    threads = torch.get_num_threads()
    turns = {size: (subject.sr_step, threads) for size, subject in subjects.items()}
    seconds = in_turns(turns, GROWTH_REPETITIONS, f"{network}: growth of time")
    del subjects, turns
    points = {}
    for size, case in tqdm(cases.items(), f"{network}: growth of memory"):
        measured = in_fresh_process(network, "float32", case, ALLOCATORS["glibc's own"])
        points[size] = {
            **case._asdict(),
            "seconds": statistics.median(seconds[size]),
            "mb": measured["peak"] - measured["rest"],
        }
    return [growth_summary(network, axis, [points[size] for size in sizes]) for axis, sizes in SIZES[network].items()]


def growth_summary(network: str, axis: str, points: list[dict]) -> dict:
    """`points` along `axis` ("T" or "batch"), and the exponents of their seconds and of their MB."""
    sizes = [point[axis] for point in points]
    exponents = {f"{what}_exponent": exponent(sizes, [p[what] for p in points]) for what in ("seconds", "mb")}
    return {"network": network, "axis": axis, "points": points, **exponents}


def exponent(x: list[float], y: list[float]) -> float:
    """p of y ≈ c·xᵖ, by least squares in log-log."""
    return float(np.polyfit([math.log(v) for v in x], [math.log(v) for v in y], 1)[0])


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; nothing was written.")
