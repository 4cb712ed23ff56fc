"""Checkpoints of the released code as networks of this library.

Their layout is described in sections 2 and 4 of the paper notes; none of the released code is used.  Parameters are
matched by name, and a file that does not fit is refused.
"""

import pickle
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
    """The network of a released checkpoint, in eval mode: images (B, 3, 32, 32) in [0, 1] → logits (B, K).

    `source` is a file or a state dict, `network` "vgg11" or "wrn16", `dataset` "cifar10" or "cifar100".  Weights keep
    their precision.  Refuses a file that is no state dict.  Refuses entries that are missing, unknown or of another
    shape; the sentence lists all of them.
    """
    ours = empty(network, dataset)
    state = source if isinstance(source, Mapping) else _read(Path(source))
    expected = {}  # the released code's key → our key and shape
    for theirs, prefix in zip(NAMES[network](), _prefixes(ours), strict=True):
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
    if problems:
        raise errors.Refused(f"This is no released {network} for {dataset}: {'; '.join(problems)}.")
    ours.to(next((value.dtype for value in state.values() if value.is_floating_point()), torch.float32))
    ours.load_state_dict({key: state[theirs] for theirs, (key, _) in expected.items()})
    return ours.eval()


def empty(network: str, dataset: str) -> Network:
    """The same network before its weights are loaded."""
    errors.one_of("released network", network, NAMES)
    errors.one_of("data set of the released code", dataset, DATASETS)
    classes, mean, std = DATASETS[dataset]
    return build(network, in_channels=3, image_size=32, num_classes=classes, T=T, mean=mean, std=std)


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise errors.Refused(f"There is no file {path}.") from None
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as problem:
        raise errors.Refused(f"{path} is no PyTorch state dict ({type(problem).__name__} on reading it).") from None
    if not isinstance(state, Mapping):
        raise errors.Refused(f"{path} holds a {type(state).__name__}; it must be a state dict.")
    return state


def _vgg11() -> list[str]:
    """The released names of modules with parameters, in the order of the forward pass.

    The second number counts three modules a layer: convolution, BatchNorm, neuron.
    """
    groups = enumerate(architectures.VGG11, 1)
    features = [f"layer{g}.{3 * i + part}" for g, group in groups for i in range(len(group)) for part in (0, 1)]
    return [*features, "classifier.1", "classifier.3", "classifier.5"]


def _wrn16() -> list[str]:
    """The same for the wide residual network."""
    names = ["conv1"]
    for g in range(1, len(architectures.WRN16) + 1):
        for block in (f"block{g}.0", f"block{g}.1"):
            names += [f"{block}.{part}" for part in ("convex.comb", "bn1", "conv1", "bn2", "conv2")]
            if block.endswith(".0"):
                names.append(f"{block}.convShortcut")
    return [*names, "bn1", "fc"]


NAMES = {"vgg11": _vgg11, "wrn16": _wrn16}


def _prefixes(network: Network) -> list[str]:
    """Our names of the same modules and parameters, in the same order."""
    prefixes = []
    for name, module in network.named_modules():
        if isinstance(module, architectures.WideBlock):
            prefixes.append(f"{name}.mix")
        elif isinstance(module, (nn.Conv2d, nn.BatchNorm2d, nn.Linear)):
            prefixes.append(name)
    return prefixes
