"""Companion to "Enhancing Adversarial Robustness in SNNs with Sparse Gradients" (Liu et al., ICML 2024).

    network = paperlib.load("laptop", "sr", seed=0)
    paperlib.judge(network, images, labels, eps=32 / 255, bounds=(0, 1))

`judge` measures the robustness of any network, `certify` proves it for some images, and `load` returns a trained
network.  The parts are in the packages `attacks`, `certificates`, `data`, `networks`, `theory` and `training`.  All of
them are imported on first use, so that a module without torch, such as `paperlib.environment`, can be imported without
it.

The import settles the arithmetic of the process (see `arithmetic`), so it comes before that of numpy and torch.
"""

import importlib

from paperlib import arithmetic

arithmetic.settle()

_FUNCTIONS = {
    "certify": "paperlib.certificates.certificate",
    "judge": "paperlib.measures.robustness",
    "load": "paperlib.profiles.selections",
}
_PACKAGES = ("attacks", "certificates", "data", "networks", "theory", "training")


def __getattr__(name: str):
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(_FUNCTIONS[name]), name)
    if name in _PACKAGES:
        return importlib.import_module(f"paperlib.{name}")
    raise AttributeError(f"module 'paperlib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_FUNCTIONS, *_PACKAGES])
