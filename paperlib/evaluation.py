"""Network + samples + attack → one flag a sample: is it still classified correctly?  Pure; nothing is kept here."""

from torch import Tensor, nn

from paperlib import images
from paperlib.attacks import Attack
from paperlib.attacks.core import in_batches
from paperlib.images import Split


def flags(
    network: nn.Module,
    samples: Split,
    attack: Attack | None,
    *,
    correct: Tensor | None = None,
    bounds: tuple[float, float],
    num_classes: int,
    seed: int = 0,
    batch_size: int = 100,
    device: str = "cpu",
) -> Tensor:
    """(N,) bool on the CPU: whether each sample is classified correctly, on clean images where `attack` is None.

    Samples misclassified without a perturbation are broken already and are not attacked; `correct`, the flags on clean
    images, spares finding them again.  The network sees exactly
    `batch_size` images at a time, in eval mode, and noise is drawn per sample, so a flag depends on its sample alone.
    Refuses images outside `bounds` and labels outside 0..K-1.
    """
    network.eval()
    x, y = samples.pixels(), samples.labels
    images.check(x, y, bounds=bounds, num_classes=num_classes)
    x, y = x.to(device), y.to(device)
    if correct is None:
        correct = (in_batches(network, x, batch_size).argmax(1) == y).cpu()
    if attack is None or not correct.any():
        return correct
    rows = correct.nonzero().squeeze(1)
    perturb = attack.bind(seed=seed, index=samples.index[rows], batch_size=batch_size)
    x, y = x[rows.to(device)], y[rows.to(device)]
    survived = correct.clone()
    survived[rows] = (in_batches(network, perturb(network, x, y, bounds=bounds), batch_size).argmax(1) == y).cpu()
    return survived
