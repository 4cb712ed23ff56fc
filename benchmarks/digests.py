"""Digests of small computations, which must be the same on every machine where `portable` arithmetic is exact.

    python benchmarks/digests.py            print them as JSON

Each covers a library that chooses its instructions by the processor: a training and three attacks (torch, oneDNN, MKL,
the compiled neuron), statistics (numpy, scipy, OpenBLAS), the decoding of an image (Pillow), a figure (matplotlib,
FreeType, and the PNG encoder).
"""

import hashlib
import io
import json
from dataclasses import replace

from paperlib import arithmetic  # before numpy and torch, for it settles the arithmetic

# isort: split
import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from PIL import Image
from scipy import stats

from paperlib import attacks
from paperlib.attacks import evaluation
from paperlib.data import datasets
from paperlib.networks import build
from paperlib.training import defenses
from paperlib.training.defenses import Batch
from paperlib.training.loop import Schedule, Step

STEPS, BATCH = 3, 16
ATTACKED = 8  # test images
EPS = 32 / 255


def training() -> dict[str, str]:
    """Three SR steps of the laptop network, and three attacks on the network that they give."""
    data = datasets.load("mnist5k", train=STEPS * BATCH, validation=1, test=ATTACKED)
    with evaluation.chance(0):
        network = build("conv-8-16", in_channels=1, image_size=28, num_classes=10, T=4, mean=data.mean, std=data.std)
    schedule = Schedule(epochs=1, batch_size=BATCH, lr=0.1, momentum=0.9, weight_decay=0.0005)
    step = Step(network.train(), defenses.build("sr", {"lam": 0.01, "h": 0.01, "preset": "released"}), schedule)
    for x, y, index in data.train.batches(BATCH):
        step.move(step.loss(Batch(x, y, index, data.bounds, seed=0)))
    digests = {"3 steps of training": digest(*network.state_dict().values())}
    labels = network.eval()(data.test.pixels()).argmax(1)  # as if all were right, so that all are attacked
    images = replace(data.test, labels=labels)
    adaptive = {"steps": 10}  # SA-PGD under both adaptive rules, whose steps take roots
    kinds = [("pgd", {"steps": 3}, None), ("apgd", {"steps": 3}, None), ("square", {"queries": 20}, None)]
    kinds += [("sa_pgd", adaptive, {"name": "assg"}), ("sa_pgd", adaptive, {"name": "pdsg"})]
    for name, options, rule in kinds:
        attack = attacks.standard(name, EPS, **options, rule=rule)
        perturbed = attack.bind(seed=0, index=images.index, batch_size=ATTACKED)(
            network, images.pixels(), labels, bounds=images.bounds
        )
        perturbed = perturbed.detach()
        digests[attack.title] = digest(perturbed, network(perturbed).argmax(1) == labels)
    return digests


def statistics() -> dict[str, str]:
    """Draws, elementary functions, products and a decomposition in numpy; quantiles in scipy."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 64), dtype=np.float32)
    functions = [np.exp(x), np.log(abs(x)), np.sin(x), np.power(abs(x), 0.3), np.tanh(x.astype(float)), np.sqrt(abs(x))]
    sums = [x.sum(0), x.mean(), x.std(), np.linalg.norm(x), x @ x, x.astype(float) @ x, np.linalg.svd(x)[1]]
    quantiles = [stats.t(n).ppf(0.975) for n in range(1, 30)] + [stats.beta(k, 31 - k).ppf(0.025) for k in range(1, 31)]
    return {"numpy": digest(*functions, *sums), "scipy": digest(np.array(quantiles), stats.spearmanr(x[0], x[1])[0])}


def decoding() -> dict[str, str]:
    """A JPEG image of noise, encoded and decoded."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=75)
    return {"JPEG": digest(np.asarray(Image.open(file)))}


def drawing() -> dict[str, str]:
    """A figure of lines, a band, text, a map of colours and a logarithmic axis, as a PNG file."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        figure, (left, right) = plt.subplots(1, 2, layout="constrained")
        x = np.linspace(0.1, 10, 200)
        left.plot(x, np.sin(x), label="sin $x$")
        left.fill_between(x, np.sin(x) - 0.1, np.sin(x) + 0.1, alpha=0.2)
        left.set(xscale="log", title="λ, ε, ‖g‖₁")
        left.legend()
        figure.colorbar(right.imshow(np.outer(np.sin(x), np.cos(x))), ax=right)
        file = io.BytesIO()
        figure.savefig(file, format="png")
        plt.close(figure)
    return {"figure": digest(np.frombuffer(file.getvalue(), np.uint8))}


def digest(*arrays) -> str:
    """The first 16 digits of a SHA-256 over the bytes of arrays or tensors."""
    content = b"".join(np.ascontiguousarray(np.asarray(array)).tobytes() for array in arrays)
    return hashlib.sha256(content).hexdigest()[:16]


def all_of_them() -> dict[str, str]:
    """Every digest by name."""
    return training() | statistics() | decoding() | drawing()


if __name__ == "__main__":
    matplotlib.use("agg")
    print(json.dumps({"arithmetic": arithmetic.current(), "digests": all_of_them()}, indent=1))
