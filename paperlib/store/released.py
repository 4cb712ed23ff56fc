"""Checkpoints of the released code, whose layout sections 2 and 4 of the paper notes describe, as our networks."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from paperlib import errors
from paperlib.data import images
from paperlib.networks import architectures
from paperlib.networks.network import Network, build

T = 8  # time steps of the released networks
DATASETS = {"cifar10": (10, *images.CIFAR10), "cifar100": (100, *images.CIFAR100)}  # classes, mean, std


def load(source: str | Path | Mapping[str, Tensor], network: str, dataset: str) -> Network:
    """The network of a released checkpoint, a file or a state dict, in eval mode: images in [0, 1] → logits.

    `network` is one of `NAMES`, `dataset` one of `DATASETS`.  Weights keep their precision, those of 16 bits become
    float32.  Refuses a file that is no state dict, and entries that are missing, unknown, of another shape, sparse,
    quantised or without values, not of floating point, not finite, and variances below 0, all in one sentence.
    """
    ours = empty(network, dataset)
    modules = architectures.WideBlock, nn.Conv2d, nn.BatchNorm2d, nn.Linear
    found = [(name, module) for name, module in ours.named_modules() if isinstance(module, modules)]
    prefixes = [f"{name}.mix" if isinstance(module, modules[0]) else name for name, module in found]
    state = source if isinstance(source, Mapping) else _read(Path(source))
    expected = {}  # the released code's key → our key and shape
    for theirs, prefix in zip(NAMES[network](), prefixes, strict=True):
        for key, value in ours.state_dict().items():
            if key == prefix or key.startswith(f"{prefix}."):
                expected[theirs + key.removeprefix(prefix)] = key, value.shape
    problems = [f"missing {key}" for key in expected if key not in state]
    problems += [f"unknown {key}" for key in state if key not in expected]
    for key, (_, shape) in expected.items():
        given = state.get(key)
        if key in state and not isinstance(given, Tensor):
            problems.append(f"{key} is a {type(given).__name__} and no tensor")
        elif key in state and given.shape != shape:
            problems.append(f"{key} of shape {tuple(given.shape)} instead of {tuple(shape)}")
        elif key in state and (fault := _fault(key, given)):
            problems.append(f"{key} {fault}")
    if problems:
        raise errors.Refused(f"This is no released {network} for {dataset}: {'; '.join(problems)}.")
    wide = {value.dtype for value in state.values()} & {torch.float64}
    ours.to(torch.float64 if wide else torch.float32)
    ours.load_state_dict({key: state[theirs] for theirs, (key, _) in expected.items()})
    return ours.eval()


def empty(network: str, dataset: str) -> Network:
    """The same network before its weights are loaded."""
    errors.one_of("released network", network, NAMES)
    errors.one_of("data set of the released code", dataset, DATASETS)
    classes, mean, std = DATASETS[dataset]
    return build(network, in_channels=3, image_size=32, num_classes=classes, T=T, mean=mean, std=std)


def _fault(key: str, given: Tensor) -> str:
    """What is wrong with the values of an entry; "" if nothing is."""
    if given.layout != torch.strided or given.is_quantized or given.is_meta:
        return f"is no plain tensor of numbers but {given.layout} on {given.device} of {given.dtype}"
    if key.endswith("num_batches_tracked"):
        return "" if given.dtype == torch.int64 else f"is of {given.dtype} instead of torch.int64"
    if not given.is_floating_point():
        return f"is of {given.dtype}; it must be of floating point"
    if not given.isfinite().all():
        return "holds a value that is not finite"
    return "holds a variance below 0" if key.endswith("running_var") and (given < 0).any() else ""


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise errors.Refused(f"There is no file {path}.") from None
    except Exception as problem:  # on damaged bytes torch raises many types
        raise errors.Refused(f"{path} is no PyTorch state dict ({type(problem).__name__} on reading it).") from None
    if not isinstance(state, Mapping):
        raise errors.Refused(f"{path} holds a {type(state).__name__}; it must be a state dict.")
    return state


def _vgg11() -> list[str]:
    """The released names of modules with parameters, in the order of the forward pass."""
    groups = enumerate(architectures.VGG11, 1)  # a layer has three modules: convolution, BatchNorm, neuron
    features = [f"layer{g}.{3 * i + part}" for g, group in groups for i in range(len(group)) for part in (0, 1)]
    return [*features, "classifier.1", "classifier.3", "classifier.5"]


def _wrn16() -> list[str]:
    """The same for the wide residual network."""
    names = ["conv1"]
    for g in range(1, len(architectures.WRN16) + 1):
        parts = "convex.comb", "bn1", "conv1", "bn2", "conv2"
        names += [f"block{g}.0.{part}" for part in (*parts, "convShortcut")] + [f"block{g}.1.{part}" for part in parts]
    return [*names, "bn1", "fc"]


NAMES = {"vgg11": _vgg11, "wrn16": _wrn16}
