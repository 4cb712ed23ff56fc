"""What all attacks share: the ball, the noise of each sample, and a network that counts its passes."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor

from paperlib import errors
from paperlib.theory import gradients
from paperlib.theory.gradients import Loss, Network, cross_entropy, in_batches, loss_gradient

Bounds = tuple[float, float]


class Ball:
    """All images within `eps` of `images` in `norm`, "linf" or "l2", and within `bounds`.

    The one place that knows what a norm means to an attack: where to start, along what to step, how to come back.
    """

    def __init__(self, images: Tensor, eps: float, bounds: Bounds, norm: str = "linf"):
        errors.number("eps", eps, at_least=0)
        errors.one_of("norm", norm, NOISE)
        self.images, self.eps, self.norm = images, eps, norm
        low, high = bounds
        self.low, self.high = (images - eps).clamp_min(low), (images + eps).clamp_max(high)

    def project(self, x: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """Each of `x`, which are the samples `rows`, brought into the ball.

        In l∞ to its nearest point.  In l2 to the nearest of the round ball and then into `bounds`: that never leads
        away from the image, so out of the ball neither.
        """
        if self.norm == "l2":
            x = self._shorten(x, self.images[rows])
        return torch.minimum(torch.maximum(x, self.low[rows]), self.high[rows])

    def direction(self, gradient: Tensor) -> Tensor:
        """The step of length 1 along which a linear loss grows most: sign g, or g/‖g‖₂; 0 where g = 0.  (B, ...)."""
        if self.norm == "linf":
            return gradient.sign()
        gradient = over(gradient, gradient.flatten(1).abs().amax(1))  # squares of tiny gradients would underflow
        return over(gradient, gradients.l2(gradient))

    def start(self, seed: int, index: Tensor | None) -> Tensor:
        """A random point for each sample: uniform in the ball of the norm, then within `bounds`."""
        return self.project(self.images + self.eps * NOISE[self.norm](self.images, seed, index))

    def _shorten(self, x: Tensor, centre: Tensor) -> Tensor:
        """`x` where it lies within `eps` of `centre` in l2, else the point at `eps` on the way there."""
        length = gradients.l2(x - centre)
        on_sphere = centre + self.eps * over(x - centre, length)
        return torch.where(per_sample(length > self.eps, x), on_sphere, x)


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """`values` (B,) in the shape (B, 1, ...) that spreads over `like` (B, ...)."""
    return values.view(-1, *[1] * (like.dim() - 1))


def over(x: Tensor, size: Tensor) -> Tensor:
    """x / size, sample by sample: (B, ...) by (B,); undivided where `size` is 0, as a norm is of zeros alone."""
    return x / per_sample(torch.where(size == 0, 1, size), x)


def over_mean(x: Tensor) -> Tensor:
    """x / mean|x|, sample by sample (B, ...); 0 where x = 0."""
    return over(x, gradients.l1(x) / x.shape[1:].numel())


def uniform_noise(images: Tensor, seed: int, index: Tensor | None) -> Tensor:
    """U[-1, 1] of the shape of `images`; sample i's draw depends on `seed` and `index[i]` alone.

    `index` (B,) is each sample's number in its data set, by default its place in the batch, so that a sample draws the
    same noise whichever samples it stands beside.
    """
    return 2 * _draws(images, seed, index, lambda rng, shape: rng.random(shape, dtype=np.float32)) - 1


def sign_noise(images: Tensor, seed: int, index: Tensor | None) -> Tensor:
    """-1 or 1 with equal chance, drawn as `uniform_noise` is."""
    return torch.where(uniform_noise(images, seed, index) < 0, -1.0, 1.0).to(images)


def round_noise(images: Tensor, seed: int, index: Tensor | None) -> Tensor:
    """Uniform in the unit ball of l2, drawn as `uniform_noise` is: ‖·‖₂ of each sample is U[0, 1]^(1/m)."""
    return _draws(images, seed, index, _in_unit_ball)


NOISE = {"linf": uniform_noise, "l2": round_noise}  # uniform in each norm's unit ball


def another(seed: int, draw: int) -> int:
    """The seed of the samples' draw number `draw`; number 0 is that of `seed` itself.

    numpy reads (seed, index) as one row of 32-bit words: so far up, the draw's number is taken for neither.
    """
    return seed + (draw << 96)


class Queried:
    """A network as one attack on `images` (B, C, H, W) queries it; it counts the passes of each sample.

    A query for some of the samples, `rows`, computes these alone, in batches of `batch_size` (see `in_batches`).
    Where the network is `coupled` (see `networks.Network.coupled`), all samples stay in one batch, each at its place
    and as it was last shown.
    """

    def __init__(self, network: Network, images: Tensor, labels: Tensor, batch_size: int | None):
        self.network, self.labels, self.batch_size = network, labels, batch_size
        self.shown = images.clone()  # to a network that is coupled
        self.forward, self.backward = torch.zeros(len(images)), torch.zeros(len(images))  # passes
        self.vanished = torch.zeros(len(images))  # gradients that were exactly 0

    @property
    def coupled(self) -> bool:
        """Whether the network is, by the backward rule that it has now."""
        return getattr(self.network, "coupled", False)

    def logits(self, x: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """Logits (n, K) of `x` (n, ...), which stand for the samples `rows`, without a graph."""
        x, _, batch_size, chosen = self._company(x, rows)
        _count(self.forward, rows, 1)
        return in_batches(self.network, x, batch_size)[chosen]

    def correct(self, x: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """Whether each of `x` (n, ...) is classified correctly, (n,) bool."""
        return self.logits(x, rows).argmax(1) == self.labels[rows]

    def gradient(
        self, x: Tensor, rows: Tensor | slice = slice(None), *, loss: Loss = cross_entropy, eot: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Logits (n, K) of `x` (n, ...), the samples `rows`, and the gradient of each one's `loss` by itself, (n, ...).

        Both are means over `eot` passes, which differ where the network draws at random: the expectation over
        transformation of Athalye et al., arXiv 1707.07397.
        """
        errors.count("eot", eot)
        x, labels, batch_size, chosen = self._company(x, rows)
        logits, gradient = loss_gradient(self.network, x, labels, batch_size, loss)
        with self._frozen():
            for draw in range(2, eot + 1):  # the mean as it grows: draws that are equal leave it as it is, to the bit
                z, g = loss_gradient(self.network, x, labels, batch_size, loss)
                logits, gradient = logits + (z - logits) / draw, gradient + (g - gradient) / draw
        logits, gradient = logits[chosen], gradient[chosen]
        for passes in (self.forward, self.backward):
            _count(passes, rows, eot)
        _count(self.vanished, rows, eot * (gradient == 0).flatten(1).all(1).cpu())
        return logits, gradient

    def _frozen(self) -> AbstractContextManager:
        """Inside the block a backward rule that remembers does not move: it does once a step of the attack."""
        return self.network.frozen() if hasattr(self.network, "frozen") else nullcontext()

    def __call__(self, images: Tensor) -> Tensor:
        """The network itself, for an attack that calls it directly: its passes are shared out evenly."""
        logits = self.network(images)
        share = len(images) / len(self.forward)
        self.forward += share
        if logits.requires_grad:
            logits.register_hook(lambda _: _count(self.backward, slice(None), share))
        return logits

    def __getattr__(self, name: str) -> object:
        """What else the network can do, such as take another backward rule."""
        return getattr(self.network, name)

    def _company(self, x: Tensor, rows: Tensor | slice) -> tuple[Tensor, Tensor, int | None, Tensor | slice]:
        """What the network is shown, its labels, how many at a time, and where those are that were asked for."""
        if not self.coupled:
            return x, self.labels[rows], self.batch_size, slice(None)
        self.shown[rows] = x
        return self.shown, self.labels, None, rows


def _count(passes: Tensor, rows: Tensor | slice, more: Tensor | float) -> None:
    passes[rows.cpu() if isinstance(rows, Tensor) else rows] += more


def queried(network: Network, images: Tensor, labels: Tensor, batch_size: int | None) -> Queried:
    """The network as an attack on `images` queries it; an evaluation passes one in, to read its counts afterwards."""
    return network if isinstance(network, Queried) else Queried(network, images, labels, batch_size)


def _draws(images: Tensor, seed: int, index: Tensor | None, draw: Callable) -> Tensor:
    """`draw(generator, shape of an image)` for each sample, its generator named by `seed` and `index[i]`: (B, ...)."""
    index = range(len(images)) if index is None else index.tolist()
    draws = [draw(np.random.default_rng((seed, i)), images.shape[1:]) for i in index]
    return torch.from_numpy(np.stack(draws)).to(images)


def _in_unit_ball(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform in the unit ball of l2: all directions alike, and within radius r a share r^m of the volume."""
    arrow = rng.standard_normal(shape, dtype=np.float32)
    return arrow * (rng.random() ** (1 / arrow.size) / np.linalg.norm(arrow))


def whole(eps: float) -> int:
    """A budget of events as an integer; refuses what is no whole number of at least 0."""
    errors.number("eps", eps, at_least=0)
    if eps != int(eps):
        raise errors.Refused(f"eps is {eps}; a budget of events must be a whole number.")
    return int(eps)
