"""Whether 16 bits change what is learned: SR networks trained in both precisions, compared seed by seed.

    python benchmarks/accuracy.py

trains the missing networks (minutes for the digits in the package; half an hour for CIFAR images, if they are on disk),
evaluates them as tab-ablation does, and writes benchmarks/accuracy.json and the table in benchmarks/README.md.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import rendering

from paperlib import arithmetic, attacks, executors, files, networks, profiles
from paperlib.data import datasets
from paperlib.errors import Refused
from paperlib.measures import statistics
from paperlib.store import checkpoints, evaluations

HERE = Path(__file__).parent
SEEDS = {"laptop": [0, 1, 2, 3, 4], "cifar": [0, 1, 2]}  # profile: one network each in either precision


def main() -> None:
    results = {}
    for name, seeds in SEEDS.items():
        try:
            datasets.load(**profiles.load(name).data)
        except Refused as problem:
            print(f"{name} is left out: {problem}")
        else:
            results[name] = measured(name, seeds)
    files.write_atomically(HERE / "accuracy.json", (json.dumps(results, indent=1) + "\n").encode())
    page = table(results)
    rendering.into_page(page, HERE / "README.md", "accuracy")
    print(page)


def measured(name: str, seeds: Sequence[int]) -> dict:
    """Accuracies (seeds,) of each precision, clean and under PGD, and the paired difference with its t interval."""
    profile = profiles.load(name).computed(arithmetic.current())
    parameters = profile.parameters("tab-ablation")
    eps, samples = parameters["eps_255"][-1], parameters["samples"]
    attack = attacks.standard("pgd", eps / 255, steps=parameters["pgd_steps"])
    sr = profile.experiments("sr", seeds=list(seeds))
    groups = {precision: [replace(e, precision=precision) for e in sr] for precision in networks.PRECISIONS}
    checkpoints.train_all([e for group in groups.values() for e in group], executor=executors.local(os.cpu_count()))
    lines = []
    for title, one in (("clean", None), (f"{attack.title} at {eps:g}/255", attack)):
        accuracy = {
            precision: [e.flags.mean() for e in evaluations.evaluated(group, [one], samples=samples)]
            for precision, group in groups.items()
        }
        difference = statistics.paired_t(accuracy["bfloat16"], accuracy["float32"])
        lines.append({"under": title, **accuracy, "difference": [difference.value, difference.low, difference.high]})
    return {
        "title": profile.title,
        "network": sr[0].network,
        "seeds": list(seeds),
        "samples": samples,
        "lines": lines,
    }


def table(results: dict) -> str:
    """Markdown with a row for each data set and attack; accuracies are means over seeds."""
    rows = ["| SR networks | under | float32 | bfloat16 | difference, points (95 %) |", "|---|---|---|---|---|"]
    for result in results.values():
        networks_ = f"{result['network']}, {len(result['seeds'])} seeds, {result['samples']} test images"
        for line in result["lines"]:
            means = [f"{100 * np.mean(line[precision]):.1f} %" for precision in networks.PRECISIONS]
            value, low, high = (100 * x for x in line["difference"])
            rows.append(
                f"| {networks_} | {line['under']} | {' | '.join(means)} | {value:+.1f} ({low:+.1f} to {high:+.1f}) |"
            )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
