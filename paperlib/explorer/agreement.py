"""The page's engine, run in Node, beside torch: logits, spikes, ∇f and attacked images of the same network.

`samples` are the images, `attack` is one that the page offers, or None, and `seed` is that of its random draw.  `rule`
holds the name of a backward rule and its width, {"name": "sigmoid", "slope": 4.0}; the attack and ∇f use it.
"""

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from paperlib import theory
from paperlib.attacks import Attack
from paperlib.data.sets import Split
from paperlib.networks import Network
from paperlib.networks.neurons import NormedLIF

SCRIPT = Path(__file__).parent / "node.js"


def is_measurable() -> bool:
    """Whether Node is installed."""
    return shutil.which("node") is not None


def engine(
    description: dict, samples: Split, attack: Attack | None, rule: dict, seed: int = 0
) -> dict[str, np.ndarray]:
    """What engine.js computes, a row a sample, flat: logits, spikes (of all layers, pooled), gradient and attacked.

    `description` is that of a network (see `content.describe`).  `gradient` is ∇ₓ f_y.
    """
    (width,) = [value for name, value in rule.items() if name != "name"] or [None]
    options = {"rule": rule["name"], "width": width, "seed": seed, "bounds": samples.bounds, "name": "none", "eps": 0.0}
    if attack:
        options |= {"name": attack.name, "eps": attack.eps} | attack.options
    task = {
        "description": description,
        "images": samples.pixels().flatten(1).tolist(),
        "labels": samples.labels.tolist(),
        "indices": samples.index.tolist(),
        "options": options,
    }
    done = subprocess.run(["node", SCRIPT], input=json.dumps(task), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"Node could not run {SCRIPT.name}: {done.stderr}")
    results = json.loads(done.stdout)
    return {name: np.array([result[name] for result in results]) for name in results[0]}


def reference(
    network: Network, samples: Split, attack: Attack | None, rule: dict, seed: int = 0
) -> dict[str, np.ndarray]:
    """The same by torch and `paperlib.attacks`."""
    images, labels, spikes = samples.pixels(), samples.labels, []
    layers = [module for module in network.modules() if isinstance(module, NormedLIF)]
    hooks = [layer.register_forward_hook(lambda _, __, output: spikes.append(output.detach())) for layer in layers]
    logits = network(images).detach()
    for hook in hooks:
        hook.remove()
    with network.backward_rule(**rule):
        gradient = theory.true_class_gradient(theory.probabilities(network), images, labels)
        attacked = images
        if attack:
            perturb = attack.bind(seed=seed, index=samples.index, batch_size=None)
            attacked = perturb(network, images, labels, bounds=samples.bounds)
    flat = [layer.transpose(0, 1).flatten(1) for layer in spikes]  # (T, B, ...) → (B, T·...)
    values = {"logits": logits, "spikes": torch.cat(flat, 1), "gradient": gradient, "attacked": attacked}
    return {name: value.flatten(1).numpy() for name, value in values.items()}


def sentence(
    networks: Sequence[Network], descriptions: Sequence[dict], samples: Split, attack: Attack, rule: dict, seed: int
) -> str:
    """By how much the two differ on all networks and samples.

    A membrane may lie so near to the threshold that rounding decides; samples whose spikes differ are counted apart.
    """
    if not is_measurable():
        return "Node was not installed where this page was made, so its numbers were not compared with PyTorch's."
    logits, gradients, ties, equal = [0.0], [0.0], 0, 0
    for network, description in zip(networks, descriptions, strict=True):
        ours, theirs = (
            side(of, samples, attack, rule, seed) for side, of in ((engine, description), (reference, network))
        )
        difference = {name: np.abs(ours[name] - theirs[name]).max(1) for name in ours}  # (B,) each
        same = difference["spikes"] == 0
        ties += int((~same).sum())
        equal += int((difference["attacked"] == 0).sum())
        largest = np.maximum(np.abs(theirs["gradient"]).max(1), np.finfo(np.float32).tiny)
        logits += [*difference["logits"][same]]
        gradients += [*(difference["gradient"] / largest)[same]]
    total = len(networks) * len(samples)
    apart = f" (but for {ties} of {total} cases, where rounding decides a spike)" if ties else ""
    return (
        f"It agrees with PyTorch. On this page's images and networks, {total} cases, run in Node: logits differ by at "
        f"most {max(logits):.1e} and ∇f by at most {max(gradients):.1e} of its largest value{apart}; the image after "
        f"{attack.title} at ε = {attack.eps * 255:g}/255 is the same to the last bit in {equal} cases."
    )
