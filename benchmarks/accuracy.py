"""Whether 16 bits change what is learned: SR networks trained in both precisions, held against each other by seed.

    python benchmarks/accuracy.py

trains what is missing (the embedded digits: minutes; CIFAR images: half an hour, where they are there), evaluates it as
tab-ablation does, and writes benchmarks/accuracy.json and the table in benchmarks/README.md.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import rendering

from paperlib import attacks, files, networks, profiles
from paperlib.data import images
from paperlib.errors import Refused
from paperlib.measures import statistics
from paperlib.store import checkpoints, evaluations

HERE = Path(__file__).parent
SEEDS = {"laptop": [0, 1, 2, 3, 4], "cifar": [0, 1, 2]}  # profile: one network each in either precision


def main() -> None:
    found = {}
    for name, seeds in SEEDS.items():
        try:
            images.load(**profiles.load(name).data)
        except Refused as problem:
            print(f"{name} is left out: {problem}")
        else:
            found[name] = measured(name, seeds)
    files.write_atomically(HERE / "accuracy.json", (json.dumps(found, indent=1) + "\n").encode())
    page = table(found)
    rendering.into_readme(page, HERE / "README.md", "accuracy")
    print(page)


def measured(name: str, seeds: Sequence[int]) -> dict:
    """Accuracies (seeds,) of each precision, clean and under PGD, and the paired difference with its t interval."""
    profile = profiles.load(name)
    given = profile.parameters("tab-ablation")
    eps = given["eps_255"][-1]
    attack = attacks.standard("pgd", eps / 255, steps=given["pgd_steps"])
    own = profile.experiments("sr", seeds=list(seeds))
    every = {precision: [replace(e, precision=precision) for e in own] for precision in networks.PRECISIONS}
    checkpoints.train_all([e for group in every.values() for e in group], workers=os.cpu_count())
    lines = []
    for what, ladder in (("clean", None), (f"{attack.title} at {eps:g}/255", attack)):
        accuracy = {
            precision: [e.flags.mean() for e in evaluations.evaluated(group, [ladder], samples=given["samples"])]
            for precision, group in every.items()
        }
        difference = statistics.paired_t(accuracy["bfloat16"], accuracy["float32"])
        lines.append({"under": what, **accuracy, "difference": [difference.value, difference.low, difference.high]})
    return {"title": profile.title, "network": own[0].network, "seeds": list(seeds), "samples": given["samples"],
            "lines": lines}  # fmt: skip


def table(found: dict) -> str:
    """Markdown, one row a data set and attack; accuracies are means over seeds."""
    rows = ["| SR networks | under | float32 | bfloat16 | difference, points (95 %) |", "|---|---|---|---|---|"]
    for one in found.values():
        of = f"{one['network']}, {len(one['seeds'])} seeds, {one['samples']} test images"
        for line in one["lines"]:
            means = [f"{100 * np.mean(line[precision]):.1f} %" for precision in networks.PRECISIONS]
            value, low, high = (100 * x for x in line["difference"])
            rows.append(f"| {of} | {line['under']} | {' | '.join(means)} | {value:+.1f} ({low:+.1f} to {high:+.1f}) |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
