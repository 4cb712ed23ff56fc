"""Gradient attacks that adapt their step: APGD to the growth of the loss, SA-PGD to the moments of the gradient.

`network` is any callable from images (B, C, H, W) in `bounds` to logits (B, K); `labels` is (B,); `eps` is in the
images' units.  Both return images of the same shape within `eps` of the originals and within `bounds`.  A sample stops
at its first misclassified iterate, which is its result, and costs nothing afterwards.  A sample whose image is
misclassified is returned unchanged; the forward pass that finds this out is not among the `steps`.

No state is shared between samples, so a sample's result does not depend on the others.  `batch_size` is the number of
images in a call of the network (see `gradients.in_batches`).  `seed` and `index` determine each sample's random start
(see `core.uniform_noise`).  Each gradient is the mean of `eot` passes, which differ if the network draws at random (see
`core.Queried`).  Arguments that cannot be used are refused (`errors.Refused`).
"""

import math

import torch
from torch import Tensor

from paperlib import errors
from paperlib.attacks.attack import register
from paperlib.attacks.core import (
    Ball,
    Bounds,
    Queried,
    another,
    over,
    over_mean,
    per_sample,
    queried,
    uniform_noise,
)
from paperlib.theory.gradients import Network, cross_entropy, margin


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio, -(z_y - max_{k≠y} z_k)/(z_π1 - z_π3), (B,), which no scale of the logits changes.

    Croce & Hein, arXiv 2003.01690.  z_π1 and z_π3 are the largest and the third largest logit.  Refuses logits of fewer
    than three classes.
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

    Each of `restarts` runs starts at a random point of the ball and takes `steps` steps with momentum.  The first steps
    have length 2ε; `_Climb` says when a sample halves the length.  The result of a sample that is never misclassified
    is its iterate of the highest loss.  A run costs a sample at most `steps` gradients and one forward pass, for its
    last iterate.
    """
    ball = Ball(images, eps, bounds, norm)
    network = queried(network, images, labels, batch_size)
    errors.count("steps", steps)
    errors.count("restarts", restarts)
    errors.one_of("loss", loss, LOSSES)
    rows = network.correct(images).nonzero().squeeze(1)
    x, _ = ascended(network, ball, rows, steps=steps, loss=loss, restarts=restarts, eot=eot, seed=seed, index=index)
    return x


def ascended(
    network: Queried,
    ball: Ball,
    rows: Tensor,
    *,
    steps: int,
    loss: str,
    restarts: int = 1,
    eot: int = 1,
    seed: int = 0,
    index: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The results of `apgd` on the samples `rows` (n,), and those of `rows` that it did not break.

    The results are (B, ...), unchanged images for samples that are not in `rows`.  Arguments are those of `apgd`.
    """
    images, labels = ball.images, network.labels

    def evaluate(x: Tensor, rows: Tensor, *, last: bool) -> tuple[Tensor, Tensor, Tensor]:
        """The loss (n,), its gradient (n, ...), zeros after the last step, and which samples are misclassified (n,)."""
        if last:
            logits, gradient = network.logits(x, rows), torch.zeros_like(x)
        else:
            logits, gradient = network.gradient(x, rows, loss=LOSSES[loss], eot=eot)
        return LOSSES[loss](logits, labels[rows]).to(x), gradient, logits.argmax(1) != labels[rows]

    x, highest = images.clone(), images.new_full((len(images),), -math.inf)
    reviews = {0, *checkpoints(steps)}
    for restart in range(restarts):
        if not len(rows):
            break
        climb = _Climb(rows, ball.start(another(seed, restart), index)[rows], 2 * ball.eps)
        for k in range(steps + 1):
            value, gradient, broken = evaluate(climb.x, climb.rows, last=k == steps)
            climb.record(value, gradient)
            x[climb.rows[broken]] = climb.x[broken]
            climb.keep(~broken)
            if not len(climb.rows) or k == steps:
                break
            if k in reviews:
                climb.review()
            climb.move(ball, share=0.75 if k > 0 else 1)
        rows = climb.rows
        better = climb.highest > highest[rows]
        x[rows[better]], highest[rows[better]] = climb.best[better], climb.highest[better]
    return x, rows


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

    The start is uniform noise, scaled so that max|δ| = ε.  The moments m ← m/2 + g/mean|g| and v ← 0.8·v + g²/mean(g²)
    start at 0 and have no bias correction.  A step is η·m/√v, clamped to ±η; η starts at ε and is halved at each of the
    `checkpoints`.  The paper returns the last misclassified iterate and moves only samples that are still correct; that
    iterate is the first misclassified one, at which a sample stops here.  The result of the last step is not
    classified here; the evaluation does so.
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
        root = v[rows].rsqrt().reciprocal()  # not sqrt: see `arithmetic`
        step = eta * m[rows] / (root + 1e-12)
        x[rows] = ball.project(x[rows] + step.clamp(-eta, eta), rows)
        if k in halvings:
            eta /= 2
    return x


def checkpoints(steps: int) -> list[int]:
    """The steps, out of 1 to `steps`, after which the step size is reviewed.

    w_j = ⌈p_j·steps⌉ (Croce & Hein, arXiv 2003.01690), each once.  The first gap is 22 % of the steps; each further gap
    is 3 % shorter, but not below 6 %.  For 100 steps: 22, 41, 57, 70, 80, 87, 93, 99.
    """
    percent, gap, marks = 22, 22, set()
    while percent <= 100:
        marks.add(math.ceil(percent * steps / 100))
        gap = max(gap - 3, 6)
        percent += gap
    return sorted(marks)


class _Climb:
    """The samples that one run of APGD still moves.  Every attribute has one row a sample, (n, ...)."""

    def __init__(self, rows: Tensor, start: Tensor, step: float):
        self.rows = rows  # the places of the samples in the batch
        self.x = self.before = start  # the iterate, and the one before it
        self.loss = start.new_full((len(rows),), math.inf)  # at the iterate
        self.best, self.highest = start.clone(), -self.loss  # the iterate of the highest loss so far, and that loss
        self.uphill = torch.zeros_like(start)  # the gradient at `best`, kept so that a return to it costs no pass
        self.step = torch.full_like(self.loss, step)  # length of a step
        self.taken = self.raised = torch.zeros_like(rows)  # steps since the last review, and those that raised the loss
        self.mark = self.highest.clone()  # the highest loss at the last review
        self.halved = torch.zeros_like(rows, dtype=torch.bool)  # whether the last review halved the step

    def record(self, loss: Tensor, gradient: Tensor) -> None:
        """Record the loss at the iterate, (n,), and its gradient, (n, ...)."""
        self.raised = self.raised + (loss > self.loss)
        self.loss, self.gradient = loss, gradient
        better = loss > self.highest
        self.best[better], self.highest[better], self.uphill[better] = self.x[better], loss[better], gradient[better]

    def keep(self, which: Tensor) -> None:
        """Drop all samples except `which`, (n,) bool."""
        for name, values in vars(self).items():
            setattr(self, name, values[which])

    def review(self) -> None:
        """Halve the step of samples without progress since the last review, and return them to their best iterate.

        A sample has no progress if fewer than 75 % of its steps raised the loss, or if the last review did not halve
        its step and its highest loss is still the same.  The first review, at the start, only sets the mark.
        """
        halve = (self.raised < 0.75 * self.taken) | (~self.halved & (self.highest == self.mark))
        self.step[halve] /= 2
        self.x[halve] = self.best[halve]
        self.loss[halve] = self.highest[halve]
        self.gradient[halve] = self.uphill[halve]
        self.mark, self.halved = self.highest.clone(), halve
        self.taken, self.raised = torch.zeros_like(self.taken), torch.zeros_like(self.raised)

    def move(self, ball: Ball, share: float) -> None:
        """Take a step: `share` of the projected gradient step plus 1 - `share` of the step before."""
        target = ball.project(self.x + per_sample(self.step, self.x) * ball.direction(self.gradient), self.rows)
        new = self.x + share * (target - self.x) + (1 - share) * (self.x - self.before)
        self.before, self.x = self.x, ball.project(new, self.rows)
        self.taken = self.taken + 1
