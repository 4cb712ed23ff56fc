"""What all attacks share: the ball around each image, the noise of each sample, a network that counts its passes."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from paperlib import errors
from paperlib.theory import gradients
from paperlib.theory.gradients import Loss, Network, cross_entropy, in_batches, loss_gradient

Bounds = tuple[float, float]
MOVING = (_BatchNorm, _DropoutNd)  # modules that a pass in training mode changes, or that draw in it


class Ball:
    """All images within `eps` of `images` (B, ...) in `norm`, "linf" or "l2", and within `bounds`.

    Everything that depends on the norm is here: the random start, the direction of a step, and the projection.
    """

    def __init__(self, images: Tensor, eps: float, bounds: Bounds, norm: str = "linf"):
        errors.number("eps", eps, at_least=0)
        errors.one_of("norm", norm, NOISE)
        self.images, self.eps, self.norm = images, eps, norm
        low, high = bounds
        self.low, self.high = (images - eps).clamp_min(low), (images + eps).clamp_max(high)

    def project(self, x: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """`x` (n, ...) projected onto the balls of the samples `rows`.

        In l∞ this is the nearest point of the ball.  In l2 it is the nearest point of the l2 ball, clamped to `bounds`:
        clamping brings a point no further from an image within `bounds`, so the result is in the ball.
        """
        if self.norm == "l2":
            x = self._shorten(x, self.images[rows])
        return torch.minimum(torch.maximum(x, self.low[rows]), self.high[rows])

    def direction(self, gradient: Tensor) -> Tensor:
        """The step of length 1 that raises a linear loss most, (B, ...): sign g, or g/‖g‖₂; 0 where g = 0."""
        if self.norm == "linf":
            return gradient.sign()
        gradient = over(gradient, gradient.flatten(1).abs().amax(1))  # squares of tiny gradients would underflow
        return over(gradient, gradients.l2(gradient))

    def start(self, seed: int, index: Tensor | None) -> Tensor:
        """A random point for each sample, (B, ...): uniform in the ball of the norm, then clamped to `bounds`."""
        return self.project(self.images + self.eps * NOISE[self.norm](self.images, seed, index))

    def _shorten(self, x: Tensor, centre: Tensor) -> Tensor:
        """`x`, scaled towards `centre` to the distance `eps` where its l2 distance is larger."""
        length = gradients.l2(x - centre)
        on_sphere = centre + self.eps * over(x - centre, length)
        return torch.where(per_sample(length > self.eps, x), on_sphere, x)


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """`values` (B,) in the shape (B, 1, ...), which broadcasts over `like` (B, ...)."""
    return values.view(-1, *[1] * (like.dim() - 1))


def over(x: Tensor, size: Tensor) -> Tensor:
    """x / size of each sample, x (B, ...) and size (B,); x itself where `size` is 0, as is the norm of zeros."""
    return x / per_sample(torch.where(size == 0, 1, size), x)


def over_mean(x: Tensor) -> Tensor:
    """x / mean|x| of each sample, (B, ...); 0 where x = 0."""
    return over(x, gradients.l1(x) / x.shape[1:].numel())


def uniform_noise(images: Tensor, seed: int, index: Tensor | None) -> Tensor:
    """Draws from U[-1, 1] in the shape of `images`, (B, ...).

    The draws of sample i depend on `seed` and `index[i]` alone, not on the other samples of the batch.  `index` (B,) is
    each sample's number in its data set, by default its place in the batch.
    """
    return 2 * _draws(images, seed, index, lambda rng, shape: rng.random(shape, dtype=np.float32)) - 1


def sign_noise(images: Tensor, seed: int, index: Tensor | None) -> Tensor:
    """-1 or 1 with probability 1/2 each; arguments as in `uniform_noise`."""
    return torch.where(uniform_noise(images, seed, index) < 0, -1.0, 1.0).to(images)


def round_noise(images: Tensor, seed: int, index: Tensor | None) -> Tensor:
    """Draws from the uniform distribution on the unit ball of l2; arguments as in `uniform_noise`."""
    return _draws(images, seed, index, _in_unit_ball)


NOISE = {"linf": uniform_noise, "l2": round_noise}  # uniform in the unit ball of each norm


def another(seed: int, draw: int) -> int:
    """The seed of draw number `draw` of the samples; draw 0 has `seed` itself.

    numpy seeds a generator with (seed, index) as one row of 32-bit words.  The number of the draw occupies words that
    no `seed` and no `index` reaches.
    """
    return seed + (draw << 96)


class Queried:
    """A network that counts the passes of each sample while one attack on `images` (B, ...) queries it.

    A query for the samples `rows` computes only these, in batches of `batch_size` (see `in_batches`).  A `coupled`
    network (see `networks.Network.coupled`) always receives all samples in one batch, each at its place; a sample that
    is not in `rows` keeps the values that were shown last.
    """

    def __init__(self, network: Network, images: Tensor, labels: Tensor, batch_size: int | None):
        self.network, self.labels, self.batch_size = network, labels, batch_size
        self.shown = images.clone()  # what a coupled network was shown last
        self.forward, self.backward = torch.zeros(len(images)), torch.zeros(len(images))  # passes of each sample
        self.vanished = torch.zeros(len(images))  # gradients of each sample that were exactly 0
        self.is_usable = False  # whether the first logits have been looked at

    @property
    def coupled(self) -> bool:
        """Whether the network is coupled under its present backward rule."""
        return getattr(self.network, "coupled", False)

    def logits(self, x: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """Logits (n, K) of `x` (n, ...) in place of the samples `rows`, without a graph."""
        batch, _, batch_size, chosen = self._batch(x, rows)
        _count(self.forward, rows, 1)
        return self._usable(in_batches(self.network, batch, batch_size))[chosen]

    def correct(self, x: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """Whether each of `x` (n, ...) is classified correctly, (n,) bool."""
        return self.logits(x, rows).argmax(1) == self.labels[rows]

    def gradient(
        self, x: Tensor, rows: Tensor | slice = slice(None), *, loss: Loss = cross_entropy, eot: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Logits (n, K) of `x` (n, ...) in place of the samples `rows`, and the gradients of their `loss`, (n, ...).

        Both are means over `eot` passes, which differ if the network draws at random: the expectation over
        transformation of Athalye et al., arXiv 1707.07397.
        """
        errors.count("eot", eot)
        batch, labels, batch_size, chosen = self._batch(x, rows)

        def first(z: Tensor, y: Tensor) -> Tensor:
            return loss(self._usable(z), y)

        logits, gradient = loss_gradient(self.network, batch, labels, batch_size, first)
        with self._frozen():
            for draw in range(2, eot + 1):  # a running mean: equal draws leave it unchanged, to the bit
                z, g = loss_gradient(self.network, batch, labels, batch_size, loss)
                logits, gradient = logits + (z - logits) / draw, gradient + (g - gradient) / draw
        logits, gradient = logits[chosen], gradient[chosen]
        _count(self.forward, rows, eot)
        _count(self.backward, rows, eot)
        _count(self.vanished, rows, eot * (gradient == 0).flatten(1).all(1).cpu())
        return logits, gradient

    def _usable(self, logits: Tensor) -> Tensor:
        """`logits` (n, K); the first ones are looked at (see `refuse_unusable`)."""
        if not self.is_usable:
            refuse_unusable(logits.detach(), self.labels)
            self.is_usable = True
        return logits

    def _frozen(self) -> AbstractContextManager:
        """A context in which a backward rule with memory does not update it, so that it updates once a step."""
        return self.network.frozen() if hasattr(self.network, "frozen") else nullcontext()

    def __call__(self, images: Tensor) -> Tensor:
        """The network itself, for an attack that calls it directly.

        Which samples `images` stand for is unknown, so the passes are shared evenly among all samples.
        """
        logits = self._usable(self.network(images))
        share = len(images) / len(self.forward)
        self.forward += share
        if logits.requires_grad:
            logits.register_hook(lambda _: _count(self.backward, slice(None), share))
        return logits

    def __getattr__(self, name: str) -> object:
        """Other attributes are those of the network, for example `backward_rule`."""
        return getattr(self.network, name)

    def _batch(self, x: Tensor, rows: Tensor | slice) -> tuple[Tensor, Tensor, int | None, Tensor | slice]:
        """The images for the network, their labels, the batch size, and the places of the samples `rows` among them."""
        if not self.coupled:
            return x, self.labels[rows], self.batch_size, slice(None)
        self.shown[rows] = x
        return self.shown, self.labels, None, rows


def _count(passes: Tensor, rows: Tensor | slice, more: Tensor | float) -> None:
    passes[rows.cpu() if isinstance(rows, Tensor) else rows] += more


def admitted(
    network: Network | None, images: Tensor, labels: Tensor | None, bounds: Bounds
) -> tuple[Tensor, Tensor | None]:
    """Images (B, ...) and labels (B,) as attacks need them: contiguous, outside any graph, labels as int64.

    This is the one door of all attacks (see `attack.register`).  Refuses an empty batch, images that are not of
    floating point, sparse or without values, or not within `bounds` (NaN never is), bounds in the wrong order, labels
    that are no whole numbers from 0, and a network with a BatchNorm or a dropout in training mode, which each pass
    would change.  `network` and `labels` may be None where an attack only draws at random.  Labels beyond the classes,
    and logits that are NaN, are refused by `Queried` at the first pass.
    """
    usable = isinstance(images, Tensor) and images.is_floating_point() and _is_plain(images)
    if not usable or images.dim() < 2 or not len(images):
        needed = "a tensor of one or more floating-point images (B, ...)"
        raise errors.Refused(f"images is {shown(images)}; it must be {needed}.")
    if not bounds[0] < bounds[1]:
        raise errors.Refused(f"bounds is {tuple(bounds)}; the lower one must lie below the upper one.")
    outside = images[~((images >= bounds[0]) & (images <= bounds[1]))]
    if len(outside):
        rule = f"every pixel must lie from {bounds[0]} to {bounds[1]}, the bounds"
        raise errors.Refused(f"A pixel is {outside[0].item()}; {rule}.")
    if labels is not None:
        whole_numbers = isinstance(labels, Tensor) and not (labels.is_floating_point() or labels.is_complex())
        if not whole_numbers or not _is_plain(labels) or labels.shape != (len(images),):
            raise errors.Refused(f"labels is {shown(labels)}; it must be a tensor of {len(images)} whole numbers.")
        if (labels < 0).any():
            raise errors.Refused(f"A label is {labels.min().item()}; labels count classes from 0.")
        labels = labels.long()
    for name, module in network.named_modules() if isinstance(network, nn.Module) else ():
        if module.training and isinstance(module, MOVING):
            part = f"its {type(module).__name__} {name!r} changes with each pass"
            raise errors.Refused(f"The network is in training mode, in which {part}; call network.eval() first.")
    return images.detach().contiguous(), labels


def _is_plain(values: Tensor) -> bool:
    """Whether every value lies in memory: the tensor is neither sparse nor on the device "meta"."""
    return values.layout == torch.strided and not values.is_meta


def shown(value: object) -> str:
    """A value as error messages name it: shape and type of a tensor, or the type of anything else."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    kind = "" if _is_plain(value) else f", {value.layout} on {value.device}"
    return f"a tensor {tuple(value.shape)} of {value.dtype}{kind}"


def refuse_unusable(logits: Tensor, labels: Tensor) -> None:
    """Refuse logits (B, K) that are NaN, and labels (B,) that are not below K: no flag would mean anything."""
    if logits.isnan().any():
        raise errors.Refused("The network's logits are NaN; its weights are damaged, or its training diverged.")
    if (labels >= logits.shape[1]).any():
        classes = f"the network's {logits.shape[1]} logits fit 0 to {logits.shape[1] - 1}"
        raise errors.Refused(f"A label is {labels.max().item()}; {classes}.")


def queried(network: Network, images: Tensor, labels: Tensor, batch_size: int | None) -> Queried:
    """`network` as a `Queried`; a `Queried` is returned as it is, so that whoever made it reads the counts."""
    return network if isinstance(network, Queried) else Queried(network, images, labels, batch_size)


def _draws(images: Tensor, seed: int, index: Tensor | None, draw: Callable) -> Tensor:
    """`draw(generator, shape of an image)` for each sample, (B, ...); `seed` and `index[i]` seed the generator."""
    index = range(len(images)) if index is None else index.tolist()
    draws = [draw(np.random.default_rng((seed, i)), images.shape[1:]) for i in index]
    return torch.from_numpy(np.stack(draws)).to(images)


def _in_unit_ball(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A uniform draw from the unit ball of l2 in m dimensions: a uniform direction times U[0, 1]^(1/m)."""
    direction = rng.standard_normal(shape, dtype=np.float32)
    return direction * (rng.random() ** (1 / direction.size) / np.linalg.norm(direction))


def whole(eps: float) -> int:
    """A budget of events as an integer; refuses a number that is not whole or is below 0."""
    errors.number("eps", eps, at_least=0)
    if eps != int(eps):
        raise errors.Refused(f"eps is {eps}; a budget of events must be a whole number.")
    return int(eps)


def shares(budget: int, steps: int) -> list[int]:
    """A budget of events in `steps` parts, as equal as whole numbers can be."""
    return [budget * step // steps - budget * (step - 1) // steps for step in range(1, steps + 1)]
