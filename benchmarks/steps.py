"""What is measured: a training step, an attack step, and the bare convolutions and matrix products of a training step.

The networks take images like those of CIFAR-10 (3×32×32, ten classes) unless their case says otherwise.  Pixels and
labels are random, because the time does not depend on them.
"""

import copy
from typing import NamedTuple

import torch
from rivals import Folded, SpikingJelly, Stepping
from torch import Tensor, nn

from paperlib import networks
from paperlib.attacks.core import Ball
from paperlib.theory.gradients import loss_gradient
from paperlib.training import defenses, loop
from paperlib.training.defenses import Batch

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)  # CIFAR-10
BOUNDS = (0.0, 1.0)
SR = {"lam": 0.01, "preset": "released"}
EPS, ALPHA = 8 / 255, 2.55 / 255


class Case(NamedTuple):
    """A network and the sizes on which time and memory depend."""

    name: str  # as in `networks.build`
    T: int
    batch: int
    channels: int = 3
    size: int = 32


CASES = {"small": Case("conv-32-64-64-128", T=4, batch=32), "VGG-11": Case("vgg11", T=8, batch=8)}
VARIANTS = {
    "stepping": Stepping,
    "folded": Folded,
    "SpikingJelly": SpikingJelly,
    "float32": nn.Identity,
    "bfloat16": nn.Identity,
}


def fast_bfloat16() -> bool:
    """Whether this processor computes in 16 bits; otherwise bfloat16 is emulated and slower than float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


class Subject:
    """One variant of a network with a batch and its steps; every variant has the same weights and images."""

    def __init__(self, case: Case, variant: str, device: str = "cpu"):
        torch.manual_seed(0)
        size = {"in_channels": case.channels, "image_size": case.size, "num_classes": 10}
        precision = "bfloat16" if variant == "bfloat16" else "float32"
        normalisation = {"mean": MEAN[: case.channels], "std": STD[: case.channels]}
        ours = networks.build(case.name, **size, T=case.T, **normalisation, precision=precision)
        images = torch.rand(case.batch, case.channels, case.size, case.size).to(device)
        labels = torch.randint(10, (case.batch,)).to(device)
        self.batch = Batch(images, labels, torch.arange(case.batch), BOUNDS, seed=0)
        self.network = (ours if VARIANTS[variant] is nn.Identity else VARIANTS[variant](ours)).to(device)
        schedule = loop.Schedule(epochs=1, batch_size=case.batch, lr=0.01, momentum=0.9, weight_decay=5e-4)
        self.step = loop.Step(self.network, defenses.build("sr", SR), schedule)
        self.ball = Ball(images, EPS, BOUNDS)

    def sr_step(self) -> None:
        """One step of training with SR in its released form (section 4 of the paper notes), in training mode."""
        self.network.train()
        self.step.move(self.step.loss(self.batch))

    def pgd_step(self) -> None:
        """One step of PGD, in eval mode: the input gradient of the loss, its sign, the projection."""
        self.network.eval()
        images = self.batch.images
        _, gradient = loss_gradient(self.network, images, self.batch.labels, None)
        self.ball.project(images + ALPHA * gradient.sign())


class Product(NamedTuple):
    """A convolution or linear layer with tensors that lie in memory as those of the network do."""

    layer: nn.Conv2d | nn.Linear
    x: Tensor  # the input
    grad: Tensor  # the gradient of the output
    first: bool  # whether its input is the images

    def forward(self) -> None:
        self.layer(self.x)

    def backward(self, *, to_input: bool, to_weight: bool) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of the input and of the weights, None where not wanted.

        The gradient of the bias is no product and is left out.
        """
        layer = self.layer
        if isinstance(layer, nn.Linear):
            return self.grad.mm(layer.weight) if to_input else None, self.grad.t().mm(self.x) if to_weight else None
        options = layer.stride, layer.padding, layer.dilation, False, [0, 0], layer.groups
        wanted = [to_input, to_weight, False]
        return torch.ops.aten.convolution_backward(self.grad, self.x, layer.weight, None, *options, wanted)[:2]


class Limit:
    """The bare products of an SR step: no implementation of the step is faster without faster convolutions.

    Their shapes and memory formats are those in `network`: the first convolution runs on B images, the last linear
    layer on B means over time, all others on T·B samples.
    """

    def __init__(self, network: networks.Network, images: Tensor):
        self.products = _products(network, images)

    @torch.no_grad()
    def sr_step(self) -> None:
        """Two forward passes; one backward pass to the images and two to all weights."""
        self._forward()
        for product in reversed(self.products):
            product.backward(to_input=True, to_weight=False)
        self._forward()
        for _ in range(2):
            for product in reversed(self.products):
                product.backward(to_input=not product.first, to_weight=True)

    def _forward(self) -> None:
        for product in self.products:
            product.forward()


def _products(network: networks.Network, images: Tensor) -> list[Product]:
    """Every convolution and linear layer of `network` in the order in which they run, with random tensors."""
    products = []

    def record(layer, inputs, output):
        x, grad = (torch.empty_strided(t.shape, t.stride(), device=t.device).normal_() for t in (inputs[0], output))
        products.append(Product(copy.deepcopy(layer), x, grad, first=layer is network.stem))

    layers = [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(record) for layer in layers]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    for product in products:
        product.layer._forward_hooks.clear()  # the copy has the hook as well
    return products
