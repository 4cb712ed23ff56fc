"""Small networks for the tests of attacks, and images that carry their number."""

import torch

COUNT = 20


def slope(x):
    """Logits of two classes whose gradient is easy: raising a pixel speaks for class 1, more so further right."""
    z = (x * (1 + torch.arange(x.shape[-1]))).flatten(1).sum(1)
    return torch.stack([-z, z], dim=1)


class Toy:
    """A smooth network of three classes for images (B, 1, 2, 4) with ten times their number in the last column.

    It writes down what it is asked: passes forward and backward of each number, gradients that were all 0, the numbers
    of each call, and the images.  Of every fifth number the gradient is exactly 0.
    """

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.first = torch.randn(6, 12, generator=generator, dtype=torch.float64)
        self.second = torch.randn(12, 3, generator=generator, dtype=torch.float64)
        self.forward, self.backward, self.vanished = (torch.zeros(COUNT) for _ in range(3))
        self.calls, self.images = [], []

    def logits(self, x):
        return torch.tanh(x[..., :-1].flatten(1) @ self.first) @ self.second

    def __call__(self, x):
        numbers = (x.detach()[:, 0, 0, -1] / 10).round().long()
        self.calls.append(numbers.tolist())
        self.images.append(x.detach().clone())
        shown = numbers.unique()  # a short batch is filled up with copies
        self.forward[shown] += 1
        dead = (numbers % 5 == 0).view(-1, 1, 1, 1)
        y = torch.where(dead, x.detach(), x)
        if x.requires_grad:
            y.register_hook(lambda g: self._looked_back(numbers, dead, g))
        return self.logits(y)

    def _looked_back(self, numbers, dead, gradient):
        self.backward[numbers.unique()] += 1
        zero = dead.flatten() | (gradient == 0).flatten(1).all(1)
        self.vanished[numbers[zero].unique()] += 1


class Coupled(Toy):
    """A sample's logits depend on the one before it in the batch, and on its place."""

    coupled = True

    def logits(self, x):
        own = super().logits(x)
        return own + 0.5 * own.roll(1, 0) + 0.1 * torch.arange(len(x), dtype=x.dtype)[:, None] * own.square()


def toy_batch():
    """Images (20, 1, 2, 4), numbered, and labels: what `Toy` says, and of every fourth something else."""
    images = torch.rand(COUNT, 1, 2, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    images[..., -1] = 10 * torch.arange(COUNT).view(-1, 1, 1)
    labels = Toy().logits(images).argmax(1)
    labels[::4] = (labels[::4] + 1) % 3
    return images, labels
