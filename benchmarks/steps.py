"""What is measured: a training step, an attack step, and the bare convolutions and matrix products of the former.

The networks take CIFAR-like images (3×32×32, ten classes); pixels and labels are random, for the time does not depend
on them.
"""

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from rivals import Folded, Stepping
from torch import Tensor, nn

from paperlib import networks
from paperlib.attacks.core import Ball
from paperlib.theory.gradients import loss_gradient
from paperlib.training import regularizers

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)  # CIFAR-10
LAMBDA = 0.01
EPS, ALPHA = 8 / 255, 2.55 / 255


class Case(NamedTuple):
    name: str  # what `networks.build` takes
    T: int
    batch: int


CASES = {"small": Case("conv-32-64-64-128", T=4, batch=32), "VGG-11": Case("vgg11", T=8, batch=8)}
VARIANTS = {"stepping": Stepping, "folded": Folded, "float32": nn.Identity, "bfloat16": nn.Identity}


def fast_bfloat16() -> bool:
    """Whether this processor computes in 16 bits; without that, bfloat16 is emulated and slower than float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


class Subject:
    """One variant of a network, its optimiser, and a batch; the same weights and images for every variant."""

    def __init__(self, case: Case, variant: str):
        torch.manual_seed(0)
        size = {"in_channels": 3, "image_size": 32, "num_classes": 10}
        precision = "bfloat16" if variant == "bfloat16" else "float32"
        own = networks.build(case.name, **size, T=case.T, mean=MEAN, std=STD, precision=precision)
        self.images, self.labels = torch.rand(case.batch, 3, 32, 32), torch.randint(10, (case.batch,))
        self.network = own if VARIANTS[variant] is nn.Identity else VARIANTS[variant](own)
        self.optimiser = torch.optim.SGD(self.network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        self.ball = Ball(self.images, EPS, (0.0, 1.0))

    def sr_step(self) -> None:
        """One step of training with SR in its released form (section 4 of the paper notes), in training mode."""
        self.network.train()
        self.optimiser.zero_grad()
        logits, penalty = regularizers.sr(self.network, self.images, self.labels, preset="released")
        (F.cross_entropy(logits, self.labels) + LAMBDA * penalty).backward(inputs=list(self.network.parameters()))
        self.optimiser.step()

    def pgd_step(self) -> None:
        """One step of PGD, in eval mode: the loss's input gradient, its sign, the projection."""
        self.network.eval()
        _, gradient = loss_gradient(self.network, self.images, self.labels, None)
        self.ball.project(self.images + ALPHA * gradient.sign())


class Product(NamedTuple):
    """A convolution or linear layer on tensors of its own, laid out in memory as in the network."""

    layer: nn.Conv2d | nn.Linear
    x: Tensor  # its input
    grad: Tensor  # of its output
    first: bool  # reads the images

    def forward(self) -> None:
        self.layer(self.x)

    def backward(self, *, to_input: bool, to_weight: bool) -> tuple[Tensor | None, Tensor | None]:
        """The gradients that are asked for; the bias's is no product."""
        c = self.layer
        if isinstance(c, nn.Linear):
            return self.grad.mm(c.weight) if to_input else None, self.grad.t().mm(self.x) if to_weight else None
        options = c.stride, c.padding, c.dilation, False, [0, 0], c.groups
        asked = [to_input, to_weight, False]
        return torch.ops.aten.convolution_backward(self.grad, self.x, c.weight, None, *options, asked)[:2]


class Limit:
    """The bare products of an SR step: nobody's step can be faster without faster convolutions.

    They have the shapes and memory formats that `network` itself gives them: the first convolution runs on B images,
    the last linear layer on B means over time, all others on T·B.
    """

    def __init__(self, network: networks.Network, images: Tensor):
        self.products = _products(network, images)

    @torch.no_grad()
    def sr_step(self) -> None:
        """Two forward passes; backward to the images once, to all weights twice."""
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
    products = []

    def record(layer, inputs, output):
        x, grad = (torch.empty_strided(t.shape, t.stride()).normal_() for t in (inputs[0], output))
        products.append(Product(copy.deepcopy(layer), x, grad, first=layer is network.stem))

    layers = [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(record) for layer in layers]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    for product in products:
        product.layer._forward_hooks.clear()  # came along with the copy
    return products
