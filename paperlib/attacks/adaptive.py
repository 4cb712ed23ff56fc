"""Gradient attacks that set their own step: APGD by whether the loss still grows, SA-PGD by the gradient's moments.

`network` is any callable from images (B, C, H, W) in `bounds` to logits (B, K); `labels` is (B,); `eps` is in the
images' units.  Both return images of the same shape within `eps` of the originals and within `bounds`.  A sample stops
at its first misclassified iterate, which it returns and after which it costs nothing; one that is misclassified from
the start comes back unchanged, for one look forward that is not among the `steps`.  All state is the sample's own:
`batch_size` fixes how many images the network sees at once (see `core.in_batches`), `seed` and `index` name each
sample's random start (see `core.uniform_noise`), and so its result is the same in any company.  With `eot` each
gradient is the mean of so many passes of a network that draws at random (see `core.Queried`).  Arguments that cannot be
used are refused (`errors.Refused`).
"""

import math

import torch
from torch import Tensor

from paperlib import errors
from paperlib.attacks.attack import register
from paperlib.attacks.core import Ball, Bounds, another, over, over_mean, per_sample, queried, uniform_noise
from paperlib.theory.gradients import Network, cross_entropy, margin


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio, -(z_y - max_{k≠y} z_k)/(z_π1 - z_π3), (B,): CE's aim, free of the logits' scale.

    Croce & Hein, arXiv 2003.01690.  z_π1 and z_π3 are the largest and the third largest logit: three classes at least.
    """
    errors.count("the number of classes under the loss 'dlr'", logits.shape[1], at_least=3)
    first, _, third = logits.topk(3).values.unbind(1)
    return -margin(logits, labels) / (first - third + 1e-12)  # the three may be equal


LOSSES = {"ce": cross_entropy, "dlr": dlr}


@register("apgd", title="APGD", gradients=lambda options: options["steps"] * options["restarts"] * options["eot"])
def apgd(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    bounds: Bounds,
    steps: int = 100,
    loss: str = "ce",
    restarts: int = 1,
    eot: int = 1,
    norm: str = "linf",
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Auto-PGD on the cross-entropy ("ce") or the "dlr" loss (Croce & Hein, arXiv 2003.01690, algorithm 1).

    From a random point of the ball each of `restarts` runs takes `steps` steps with momentum, at first of length 2ε;
    see `_Climb` for when a sample halves its own.  A sample that is never misclassified returns its iterate of the
    highest loss.  A run costs a sample `steps` gradients at most, and a look forward at its last iterate.
    """
    ball = Ball(images, eps, bounds, norm)
    network = queried(network, images, labels, batch_size)
    errors.count("steps", steps)
    errors.count("restarts", restarts)
    errors.one_of("loss", loss, LOSSES)

    def look(x: Tensor, rows: Tensor, *, last: bool) -> tuple[Tensor, Tensor, Tensor]:
        """The loss (n,), its gradient (n, ...; zeros after the last step), and whether a sample is misclassified."""
        if last:
            logits, gradient = network.logits(x, rows), torch.zeros_like(x)
        else:
            logits, gradient = network.gradient(x, rows, loss=LOSSES[loss], eot=eot)
        return LOSSES[loss](logits, labels[rows]).to(x), gradient, logits.argmax(1) != labels[rows]

    x, highest = images.clone(), images.new_full((len(images),), -math.inf)
    rows = network.correct(images).nonzero().squeeze(1)
    looks_back = {0, *checkpoints(steps)}
    for restart in range(restarts):
        if not len(rows):
            break
        climb = _Climb(rows, ball.start(another(seed, restart), index)[rows], 2 * eps)
        for k in range(steps + 1):
            value, gradient, broken = look(climb.x, climb.rows, last=k == steps)
            climb.see(value, gradient)
            x[climb.rows[broken]] = climb.x[broken]
            climb.keep(~broken)
            if not len(climb.rows) or k == steps:
                break
            if k in looks_back:
                climb.look_back()
            climb.move(ball, share=0.75 if k > 0 else 1)
        rows = climb.rows
        better = climb.highest > highest[rows]
        x[rows[better]], highest[rows[better]] = climb.best[better], climb.highest[better]
    return x


@register("sa_pgd", title="SA-PGD", gradients=lambda options: options["steps"] * options["eot"])
def sa_pgd(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    bounds: Bounds,
    steps: int = 100,
    eot: int = 1,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """PGD on the cross-entropy in l∞ with the stable, adaptive step of arXiv 2512.22522 (section 6 of the paper notes).

    The start is uniform noise stretched until max|δ| = ε.  With g/mean|g| and g²/mean(g²) added to the moments
    m ← m/2 and v ← 0.8v, both from 0 and without bias correction, a step is η·m/√v within ±η; η starts at ε and halves
    at each of the `checkpoints`.  The source returns the last misclassified iterate, and moves only samples still
    correct: that iterate is the first one, at which a sample leaves.  Whoever evaluates judges the last step's.
    """
    ball = Ball(images, eps, bounds)
    network = queried(network, images, labels, batch_size)
    errors.count("steps", steps)
    noise = uniform_noise(images, seed, index)
    start = ball.project(images + eps * over(noise, noise.flatten(1).abs().amax(1)))
    x, rows = images.clone(), network.correct(images).nonzero().squeeze(1)
    x[rows] = start[rows]
    m, v, eta, halvings = torch.zeros_like(x), torch.zeros_like(x), eps, checkpoints(steps)
    for k in range(1, steps + 1):
        if not len(rows):
            break
        logits, gradient = network.gradient(x[rows], rows, eot=eot)
        correct = logits.argmax(1) == labels[rows]
        rows, g = rows[correct], over_mean(gradient[correct])
        m[rows] = 0.5 * m[rows] + g
        v[rows] = 0.8 * v[rows] + over_mean(g.square())  # of g, not of the gradient, whose squares might underflow
        step = eta * m[rows] / (v[rows].sqrt() + 1e-12)
        x[rows] = ball.project(x[rows] + step.clamp(-eta, eta), rows)
        if k in halvings:
            eta /= 2
    return x


def checkpoints(steps: int) -> list[int]:
    """After which of `steps` steps the step size is reconsidered: gaps of 22 %, each 3 % shorter, at least 6 %.

    w_j = ⌈p_j·steps⌉ (Croce & Hein, arXiv 2003.01690), each once: for 100 steps 22, 41, 57, 70, 80, 87, 93, 99.
    """
    percent, gap, found = 22, 22, []
    while percent <= 100:
        found.append(math.ceil(percent * steps / 100))
        gap = max(gap - 3, 6)
        percent += gap
    return sorted(set(found))


class _Climb:
    """The samples that one run of APGD still moves, and what each of them remembers: every field has a row a sample."""

    def __init__(self, rows: Tensor, start: Tensor, step: float):
        self.rows = rows  # which samples of the batch
        self.x = self.before = start  # the iterate, and the one before it
        self.loss = start.new_full((len(rows),), math.inf)  # at the iterate
        self.best, self.highest = start.clone(), -self.loss  # the iterate of the highest loss so far, and that loss
        self.uphill = torch.zeros_like(start)  # the gradient there: so a return to it asks the network nothing
        self.step = torch.full_like(self.loss, step)
        self.taken = self.raised = torch.zeros_like(rows)  # steps since the last look back, and those to a higher loss
        self.mark = self.highest.clone()  # the highest loss at the last look back,
        self.halved = torch.zeros_like(rows, dtype=torch.bool)  # and whether the step was halved then

    def see(self, loss: Tensor, gradient: Tensor) -> None:
        """Take note of the loss at the iterate, and of its gradient."""
        self.raised = self.raised + (loss > self.loss)
        self.loss, self.gradient = loss, gradient
        better = loss > self.highest
        self.best[better], self.highest[better], self.uphill[better] = self.x[better], loss[better], gradient[better]

    def keep(self, which: Tensor) -> None:
        """Go on with the samples `which` (n,) alone."""
        for name, values in vars(self).items():
            setattr(self, name, values[which])

    def look_back(self) -> None:
        """Where it went badly since the last look back, halve the step and return to the best iterate.

        Badly: fewer than 75 % of the steps raised the loss, or the step was not halved then and the highest loss is
        still the same.  Nothing is behind the first look, at the start: it only sets the mark.
        """
        halve = (self.raised < 0.75 * self.taken) | (~self.halved & (self.highest == self.mark))
        self.step[halve] /= 2
        self.x[halve] = self.best[halve]
        self.loss[halve] = self.highest[halve]
        self.gradient[halve] = self.uphill[halve]
        self.mark, self.halved = self.highest.clone(), halve
        self.taken, self.raised = torch.zeros_like(self.taken), torch.zeros_like(self.raised)

    def move(self, ball: Ball, share: float) -> None:
        """A step: `share` of the projected gradient step, and the rest of the step before it."""
        target = ball.project(self.x + per_sample(self.step, self.x) * ball.direction(self.gradient), self.rows)
        new = self.x + share * (target - self.x) + (1 - share) * (self.x - self.before)
        self.before, self.x = self.x, ball.project(new, self.rows)
        self.taken = self.taken + 1
