"""Seconds of the steps of the laptop profile's network, in a process whose environment says how torch computes.

    python benchmarks/laptop.py REPETITIONS

prints the medians as JSON, by the names that the page gives the steps.
"""

import json
import statistics
import sys
import time

import torch
from rendering import LAPTOP
from steps import Case, Subject

CASE = Case("conv-8-16", T=4, batch=64, channels=1, size=28)


def measure(repetitions: int) -> dict[str, float]:
    """Median seconds of each step of `rendering.LAPTOP` on one thread."""
    torch.set_num_threads(1)
    training, few, many = (Subject(CASE._replace(batch=batch), "float32") for batch in (CASE.batch, 25, 100))
    actions = dict(zip(LAPTOP, (training.sr_step, few.pgd_step, many.pgd_step), strict=True))
    seconds = {name: [] for name in actions}
    for _ in range(repetitions + 1):
        for name, action in actions.items():
            started = time.perf_counter()
            action()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}  # the first warms up


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
