"""The content of an explorer: networks and test images, its opening example, and how well it agrees with torch.

Everything that the page says of numbers is computed here, from the networks that it holds.
"""

import base64
import inspect
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from paperlib import errors, words
from paperlib.attacks import Attack
from paperlib.data.sets import ImageSet, Split
from paperlib.explorer import agreement
from paperlib.networks import Network, fused, rules
from paperlib.networks.neurons import NormedLIF
from paperlib.store.experiment import AnyExperiment, Experiment, Opened
from paperlib.theory.gradients import in_batches

RULES = ("triangle", "sigmoid", "atan", "rectangle", "exponential", "straight-through")  # those of engine.js
ATTACK, SEED = Attack("pgd", 32 / 255, {"steps": 10}), 0  # of the opening example
ATTACKED = f"{ATTACK.title} at {ATTACK.eps * 255:g}/255"
SEARCHED = 100  # test images among which the opening example is sought
IMAGES = 12  # that the page offers


def refuse(experiment: AnyExperiment) -> None:
    """Refuse a network that the engine cannot run, before it is loaded."""
    named, runs = f"The explorer cannot run {experiment.network}", "it runs conv-A-B-... networks on images"
    if not re.fullmatch(r"conv(-\d+)+", experiment.network):
        raise errors.Refused(f"{named} of {experiment.key}; {runs}.")
    if experiment.precision != "float32":
        raise errors.Refused(f"{named} of {experiment.key} in {experiment.precision}; {runs}, in float32.")


def refuse_mixture(experiments: Sequence[Experiment]) -> None:
    """Refuse networks that do not see the same images."""
    for other in experiments[1:]:
        if other.data != experiments[0].data:
            first, second = (f"{e.key} sees {e.data['name']}" for e in (experiments[0], other))
            raise errors.Refused(f"{first} and {second}; the networks of one explorer must see the same data.")


def of(opened: Sequence[Opened]) -> dict:
    """The content of the explorer of some networks, which `refuse` and `refuse_mixture` have let pass.

    Its opening example is found among the first test images by the rule that `_example` states.
    """
    experiments, networks = zip(*opened, strict=True)
    data, titles = experiments[0].load_data(), titled(experiments)
    rule = _rule(experiments[0].rule if experiments[0].rule in RULES else RULES[0])
    searched = data.test.take(min(SEARCHED, len(data.test)))
    clean, kept = _flags(networks, searched, rule)
    shown = [data.classes[label] for label in searched.labels.tolist()]
    example, reason, story = _example(clean, kept, shown, titles)
    rows = _offered(data.test, example)
    offered = Split(data.test.images[rows], data.test.labels[rows], data.test.index[rows], data.test.one, data.bounds)
    descriptions = [describe(network, data) for network in networks]
    start = {"network": 0, "image": rows.index(example), "attack": ATTACK.name, "eps_255": round(ATTACK.eps * 255)}
    start |= {"steps": ATTACK.options["steps"], "seed": SEED, "rule": rule["name"], "width": _width(rule["name"])[1]}
    shares = ", ".join(f"{title} {int(flags.sum())}" for title, flags in zip(titles, kept, strict=True))
    return {
        "data": {
            "classes": list(data.classes),
            "bounds": list(data.bounds),
            "channels": data.in_channels,
            "size": data.image_size,
        },
        "networks": [
            description
            | {"title": title, "colour": words.hue(e.defense), "described": f"{title}: {_described(e, data)}"}
            for description, title, e in zip(descriptions, titles, experiments, strict=True)
        ],
        "images": [
            {"label": label, "index": index, "pixels": _base64(image)}
            for image, label, index in zip(offered.images, offered.labels.tolist(), offered.index.tolist(), strict=True)
        ],
        "rules": [dict(zip(("name", "option", "value"), (name, *_width(name)), strict=True)) for name in RULES],
        "start": start,
        "story": story,
        "choice": f"The images are test images of {data.title}: the first of each class, then the first others, and "
        f"the example, which a rule chose: {reason}. Of the first {len(searched)} test images, so many are still "
        f"classified correctly under {ATTACKED}: {shares}.",
        "agreement": agreement.sentence(networks, descriptions, offered, ATTACK, rule, SEED),
    }


def titled(experiments: Sequence[Experiment]) -> list[str]:
    """A name for each network: its training, and where several share one the beginning of the key as well."""
    titles = [words.title(e.defense) for e in experiments]
    unique = len(set(titles)) == len(titles)
    return titles if unique else [f"{title} {e.key[:6]}" for title, e in zip(titles, experiments, strict=True)]


def describe(network: Network, data: ImageSet) -> dict:
    """A conv-A-B-... network as engine.js takes it: sizes, constants, and weights as base64 of float32.

    For each layer the weights are kernel, bias, scale and shift, where BatchNorm in eval mode is x·scale + shift; then
    come weight and bias of the readout.
    """
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in network.modules() if isinstance(module, NormedLIF)]
    weights: list[Tensor] = []
    for convolution, norm in zip(convolutions, norms, strict=True):
        inverse = (norm.running_var + norm.eps).rsqrt()
        affine = fused.affine(norm.weight, norm.bias, norm.running_mean, inverse, torch.float32)
        weights += [convolution.weight, convolution.bias, *affine]
    weights += [network.head.weight, network.head.bias]
    flat = torch.cat([values.detach().flatten() for values in weights])
    neuron = network.neurons()[0]
    return {
        "channels": data.in_channels,
        "size": data.image_size,
        "classes": data.num_classes,
        "widths": [convolution.out_channels for convolution in convolutions],
        "T": network.T,
        "tau": neuron.tau,
        "threshold": neuron.threshold,
        "detach_reset": neuron.detach_reset,
        "mean": list(network.mean),
        "std": list(network.std),
        "weights": _base64(flat),
    }


def _flags(networks: Sequence[Network], samples: Split, rule: dict) -> tuple[Tensor, Tensor]:
    """Which samples each network classifies correctly, (networks, B) bool each: without an attack, and under it too."""
    clean, kept = [], []
    images, labels = samples.pixels(), samples.labels
    perturb = ATTACK.bind(seed=SEED, index=samples.index, batch_size=SEARCHED)
    for network in networks:
        with network.backward_rule(**rule):
            attacked = perturb(network, images, labels, bounds=samples.bounds)
        right = [in_batches(network, x, SEARCHED).argmax(1) == labels for x in (images, attacked)]
        clean.append(right[0])
        kept.append(right[0] & right[1])
    return torch.stack(clean), torch.stack(kept)


def _example(clean: Tensor, kept: Tensor, shown: Sequence[str], titles: Sequence[str]) -> tuple[int, str, str]:
    """The row of the opening example, the rule that found it, and a sentence on it; `shown` is what each row shows."""
    first, *others = titles
    found = clean.all(0) & ~kept[0] & kept[1:].all(0)
    if not found.any():
        reason = f"the first test image, since {ATTACKED} makes {first} alone misclassify none"
        return 0, reason, f"The example: {ATTACKED} on this {shown[0]}."
    row = int(found.nonzero()[0])
    spared = f", but not {' and '.join(', '.join(others).rsplit(', ', 1))}" if others else ""
    reason = f"the first that every network classifies correctly and that {ATTACKED} makes {first} misclassify{spared}"
    return row, reason, f"The example: {ATTACKED} makes {first} misclassify this {shown[row]}{spared}."


def _offered(test: Split, example: int) -> list[int]:
    """The rows of the images that the page offers: the first of each class, the example, and the first others."""
    firsts = {int(label): row for row, label in reversed([*enumerate(test.labels.tolist())])}
    some = [firsts[label] for label in sorted(firsts)][: IMAGES - 1]
    return list(dict.fromkeys([*some, example, *range(len(test))]))[:IMAGES]


def _width(name: str) -> tuple[str, float] | tuple[None, None]:
    """The option of a backward rule that sets its width, and the option's default; None for both without one."""
    parameters = inspect.signature(rules.RULES[name]).parameters
    return next(((option, p.default) for option, p in parameters.items()), (None, None))


def _rule(name: str) -> dict:
    """A backward rule with its default width, {"name": "sigmoid", "slope": 4.0}."""
    option, value = _width(name)
    return {"name": name} | ({option: value} if option else {})


def _described(experiment: Experiment, data: ImageSet) -> str:
    """The text of an experiment: architecture, training and key."""
    e = experiment
    options = {name: f"{value:.3g}" if isinstance(value, float) else value for name, value in e.options.items()}
    listed = "".join(f", {name} = {value}" for name, value in options.items())
    trained = f"{e.schedule.epochs} epochs on {data.title}, seed {e.seed}{listed}"
    return f"{e.network}, T = {e.T}, τ = {e.tau:g}, {e.rule} rule, {trained}; key {e.key}"


def _base64(values: Tensor) -> str:
    """The bytes of a tensor as text: little-endian float32, or uint8."""
    array = values.cpu().numpy()
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()
