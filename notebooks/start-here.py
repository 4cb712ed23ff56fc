# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["badges"]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/sparse-gradients-companion/blob/main/notebooks/start-here.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/OWNER/sparse-gradients-companion/main?labpath=notebooks%2Fstart-here.ipynb)

# %% tags=["setup"] jupyter={"source_hidden": true}
import sys

if "google.colab" in sys.modules:  # Colab opens this file alone: fetch the rest; torch is there already
    import os
    import subprocess

    _url, _home = "https://github.com/OWNER/sparse-gradients-companion", "/content/sparse-gradients-companion"
    if not os.path.exists(_home):
        subprocess.run(["git", "clone", "--depth=1", _url, _home], check=True)
    os.chdir(_home)
    subprocess.run([sys.executable, "-m", "paperlib.environment", "--colab"], check=True)
    sys.path.insert(0, _home)
import paperlib  # before numpy and torch, for it settles the arithmetic

# %% [markdown]
# # Start here: spikes, attacks and sparse gradients in ten minutes
# **For** a reader who has never seen a spiking neural network (SNN). You need to have trained some neural network in
# PyTorch before.
#
# **You will see** a digit become spikes, a network learn from spikes, an attack fool it, and the training of the paper,
# SR, make the attack harder. The code stands in the cells, short enough to read, and computes every number you see.
#
# **Time:** ten minutes to read, 2 minutes to run on one core. New words are in the [glossary](../docs/glossary.md).
# Cells that only draw are folded in JupyterLab; where they are not, as on GitHub, skip them.

# %% tags=["parameters"]
profile: str = "laptop"  # which file under params/ names the data, and the network that is judged in the end
tau: float = 1.0  # leak τ: the share of its membrane potential that a neuron keeps from step to step
gamma: float = 1.0  # half the width γ of the surrogate gradient
steps: int = 4  # time steps T for which the network sees a digit
epochs: int = 5  # how often each training sees every training digit
eps_255: float = 32.0  # size ε of attacks and noise, in units of 1/255
pgd_steps: int = 20  # steps of the attack PGD
lam: float = 0.2  # weight λ of SR's penalty: of 0.03 to 0.5 the best on validation digits
h: float = 0.01  # step of SR's finite difference, on the pixels' scale from 0 to 1
samples: int = 500  # test digits on which accuracy is measured
judged: int = 50  # test digits for the last step, which spends more on each

# %% tags=["asks"]
import matplotlib.pyplot as plt
import snntorch as snn
import torch
import torch.nn.functional as F
from IPython.display import IFrame, Markdown, display
from scipy.stats import binomtest
from torch import nn

from paperlib import artifacts, paths, records, runs, words
from paperlib.artifacts import drawing, reading

run = runs.begin("start-here", globals())  # it checks the parameters
pretrained = run.ask(run.profile.experiments("sr", seeds=run.profile.seeds[:1]))  # the network of step 9

# %% [markdown]
# ## Where this leads
# The paper is Liu et al., *Enhancing Adversarial Robustness in SNNs with Sparse Gradients*
# ([arXiv 2405.20355](https://arxiv.org/abs/2405.20355)). Before you spend ten minutes on it, this is what its training
# SR does and does not do on 5,000 digits, in the runs that are kept in this repository.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
plt.rcParams |= artifacts.STYLE | {"figure.constrained_layout.use": True, "axes.linewidth": 0.6}
ladder, ablation = (
    records.load(paths.RESULTS / "laptop" / f"{name}.json") for name in ("fig-attack-ladder", "tab-ablation")
)
worst = reading.select(ladder, quantity="mean accuracy", attack="worst", eps_255=32.0)
figure, ax = plt.subplots(figsize=(6, 1.7))
for y, row in enumerate(worst):
    drawing.dots(ax, [row], y, words.hue(row["training"]))
drawing.name_lines(ax, [words.title(r["training"]) for r in worst], [words.hue(r["training"]) for r in worst])
ax.set(xlim=(0, 100), xlabel=f"digits read correctly under every attack at ε = {words.radius(worst[0])}, %")
kept = ", ".join(f"{words.title(row['training'])} {100 * row['value']:.0f} %" for row in worst)
ax.set_title(f"What all attacks together leave: {kept}", loc="left")
ax.grid(axis="x")


def compared(row, what, notebook):
    """One line of text: a difference of two trainings, in words that follow from its interval."""
    verdict = {1: "**more** robust than", -1: "**less** robust than", 0: "**not clearly more or less** robust than"}
    ours, other = words.title(row["training"]), words.title(row["against"])
    return (
        f"* {ours} is {verdict[reading.clear(row)]} {other}: {reading.points(row)} "
        f"under {what} ([`{notebook}`]({notebook}.ipynb))."
    )


differences = {"quantity": "difference", "eps_255": 32.0}
(alone,) = reading.select(ladder, **differences, attack="worst", training="sr", against="vanilla")
(added,) = reading.select(ladder, **differences, attack="worst", training="at+sr", against="at")
(instead,) = reading.select(ablation, **differences, attack="pgd", training="sr", against="at", budget=None)
plt.show()
Markdown(
    "\n".join(
        [
            compared(alone, "the worst case of all attacks", "fig-attack-ladder"),
            compared(instead, "the attack PGD", "tab-ablation"),
            compared(added, "the worst case of all attacks", "fig-attack-ladder"),
            "",
            f"*Vanilla* is plain training, *AT* is training on attacked digits. Means over {alone['n']} seeds with "
            f"95 % intervals; {ladder['provenance']['parameters']['samples']} test digits for the worst case, "
            f"{ablation['provenance']['parameters']['samples']} for PGD.",
        ]
    )
)

# %% [markdown]
# ## 1. A digit becomes currents, currents become spikes
# A layer multiplies the digit $x$ by its weights. The result is one number per neuron, its input **current**
# $I = Wx + b$. The same digit is shown at every time step $t$, so the current stays the same (*direct encoding*).
#
# A neuron adds the current to its **membrane potential** $m$. When $m$ reaches the threshold $\theta = 1$, the neuron
# sends a **spike** $s$ and starts again from 0. Between steps it keeps the share $\tau$ of what is left, $v$:
#
# $$m[t] = \tau\,v[t-1] + I[t] \qquad s[t] = 1(m[t] - \theta \ge 0) \qquad v[t] = (1 - s[t])\,m[t]$$
#
# With $\tau < 1$ this is the *leaky integrate-and-fire* neuron (LIF); with $\tau = 1$ nothing leaks, as in the code of
# the paper. Three lines of the next cell are these three formulas.


# %% tags=["function"]
def neuron(currents, tau, theta=1.0):
    """Membrane potentials m and spikes s, (T, ...) each, of neurons with input currents (T, ...)."""
    v, membranes, spikes = torch.zeros_like(currents[0]), [], []
    for current in currents:
        m = tau * v + current  # m[t] = τ·v[t-1] + I[t]
        s = (m >= theta).float()  # s[t] = 1(m[t] - θ ≥ 0)
        v = (1 - s) * m  # v[t] = (1 - s[t])·m[t], a hard reset
        membranes.append(m)
        spikes.append(s)
    return torch.stack(membranes), torch.stack(spikes)


# %%
digits = run.data
test = digits.test.take(samples)
images, labels = test.pixels(), test.labels  # (n, 1, 28, 28) from 0 to 1, and (n,)

torch.manual_seed(0)
layer = nn.Linear(28 * 28, 100)  # 100 neurons; their weights are random, for nothing is trained yet
current = layer(images.flatten(1)).detach()  # (n, 100)
_, s = neuron(current[0].expand(12, 100), tau)  # 12 steps of the first digit

# %% tags=["hide-input"] jupyter={"source_hidden": true}
order = current[0].argsort(descending=True)
shown = [int(order[0]), int(order[12]), int((current[0] + 0.1).abs().argmin())]  # strong, weak and negative
colours = ["#0072b2", "#009e73", "#882255"]
leaks = [tau, tau / 2]
figure = plt.figure(figsize=(9, 4.2))
grid = figure.add_gridspec(3, 3, width_ratios=[1.1, 2, 2])
drawing.picture(figure.add_subplot(grid[:, 0]), images[0].numpy()).set_title("the digit x")
counts = {leak: [] for leak in leaks}
for column, leak in enumerate(leaks, start=1):
    for i, (index, colour) in enumerate(zip(shown, colours, strict=True)):
        ax = figure.add_subplot(grid[i, column])
        ms, spikes = (values.tolist() for values in neuron(current[0, index].expand(12), leak))
        times, path = [0], [0.0]
        for t, (peak, spike) in enumerate(zip(ms, spikes, strict=True), start=1):
            times += [t, t]
            path += [peak, (1 - spike) * peak]  # up or down to m[t], then to v[t]
        ax.plot(times, path, color=colour, linewidth=1.4)
        ax.axhline(1, color=".4", linestyle="--", linewidth=0.8)
        ax.vlines([t for t, spike in enumerate(spikes, start=1) if spike], 1.3, 1.8, color=colour, linewidth=2.2)
        ax.set(xlim=(0, 12.4), ylim=(-1.3, 1.9), yticks=[0, 1])
        counts[leak].append(int(sum(spikes)))
        ax.text(0.2, -1.0, f"I = {current[0, index]:.2f}", color=colour)
        if i == 0:
            ax.set_title(
                f"τ = {leak:g}: "
                + ("nothing leaks" if leak == 1 else f"{100 * (1 - leak):.0f} % leaks away in each step")
            )
        if i == 1 and column == 1:
            ax.set_ylabel("membrane potential m")
        ax.tick_params(labelbottom=i == 2)
    ax.set_xlabel("time step t (dashes: θ, bars: spikes)")
plt.show()


def seen(sentence, *notebooks):
    """Show what a step has found, and links to the notebooks that go deeper."""
    links = ", ".join(f"[`{name}`]({name}.ipynb)" for name in notebooks)
    display(Markdown(f"**Seen:** {sentence} **Deeper:** {links}."))


seen(
    f"in 12 steps the three neurons spike {', '.join(map(str, counts[tau]))} times at τ = {tau:g}, and "
    f"{', '.join(map(str, counts[tau / 2]))} times at τ = {tau / 2:g}, where a potential cannot exceed I/(1 - τ).",
    "fig-timesteps-and-leak",
)

# %% [markdown]
# ## 2. The raster: a layer's answer to a digit
# A *raster* has a line for each neuron and a bar for each spike. The neurons are sorted by their current for the left
# digit; the right raster keeps that order.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
other = int((labels != labels[0]).nonzero()[0])  # the first digit of another class
rasters = {i: neuron(current[i].expand(12, 100), tau)[1][:, order] for i in (0, other)}  # (12, 100) each
figure, axes = plt.subplots(1, 4, figsize=(9, 3), width_ratios=[1, 2.6, 2.6, 1])
for i, picture, ax in ((0, axes[0], axes[1]), (other, axes[3], axes[2])):
    drawing.picture(picture, images[i].numpy()).set_title(f"a {labels[i]}")
    t, index = rasters[i].nonzero(as_tuple=True)
    ax.scatter(t + 1, index, marker="|", s=14, linewidth=1.2, color="black")
    active = int(rasters[i].any(0).sum())
    ax.set(xlim=(0, 13), ylim=(100, -1), xlabel="time step t")
    ax.set_title(f"{active} of 100 neurons spike")
axes[1].set_ylabel("neuron, strongest current first")
axes[2].tick_params(labelleft=False)
plt.show()
differs = int((rasters[0].sum(0) != rasters[other].sum(0)).sum())
seen(
    f"{differs} of 100 neurons, though untrained, spike a different number of times for a {labels[0]} and a "
    f"{labels[other]}: from such differences the next layers learn.",
    "fig-spikes",
    "tab-poisson-eot",
)

# %% [markdown]
# ## 3. A spike has no derivative; a surrogate stands in for it
# Training follows gradients, but $s = 1(m - \theta \ge 0)$ is a step: its slope is 0 everywhere except at the
# threshold, where it has none. The remedy is the **surrogate gradient**. Forward, the spike stays a step. Backward, one
# computes as if its slope were a triangle around the threshold:
#
# $$\frac{\partial s}{\partial m} := \frac{1}{\gamma^2}\max(0,\ \gamma - |m - \theta|)$$


# %% tags=["function"]
class Spike(torch.autograd.Function):
    """A spike from u = m - θ: forward a step, backward the triangle of half width γ."""

    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u >= 0).float()

    @staticmethod
    def backward(ctx, grad):
        (u,) = ctx.saved_tensors
        return grad * (gamma - u.abs()).clamp(min=0) / gamma**2  # max(0, γ - |m - θ|)/γ²


# %% tags=["hide-input"] jupyter={"source_hidden": true}
nudge = 1e-5
signs = torch.randn(1000, 28 * 28).sign()  # each row raises or lowers every pixel of the digit a little
nudged = neuron(layer(images[0].flatten() + nudge * signs).detach().expand(12, 1000, 100), tau)[1]
changed = int((nudged != s[:, None]).any(0).any(1).sum())

membrane = torch.linspace(-1, 3, 401, requires_grad=True)
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.5))
left.plot(membrane.detach(), Spike.apply(membrane - 1).detach(), color="black", drawstyle="steps-mid")
left.set(xlabel="membrane potential m", ylabel="spike s", yticks=[0, 1], title="Forward: a step")
(slope,) = torch.autograd.grad(Spike.apply(membrane - 1).sum(), membrane)
right.plot(membrane.detach(), 0 * slope, color="black", label="slope of the step")
right.plot(membrane.detach(), slope, color=drawing.ATTACK, label=f"surrogate, γ = {gamma:g}")
right.set(xlabel="membrane potential m", ylabel="∂s/∂m", title="Backward: a triangle in place of 0")
right.legend(fontsize=8)
for ax in (left, right):
    ax.axvline(1, color=".4", linestyle="--", linewidth=0.8)
    ax.set_xticks([-1, 0, 1, 2, 3], ["-1", "0", "θ = 1", "2", "3"])
plt.show()
seen(
    f"{changed} of 1,000 tiny random nudges of the digit (±{nudge:.5f} at each pixel) changed a spike of the layer, "
    f"whose true slope is 0 almost everywhere; the surrogate has slope {slope.max():.2g} at the threshold.",
    "fig-surrogate-width",
    "fig-landscape",
)

# %% [markdown]
# ## 4. A spiking network learns to read digits
# `snn.Leaky` of [snnTorch](https://snntorch.readthedocs.io) is the neuron of step 1, with our surrogate. Two
# convolutions feed two layers of neurons; the answer (the *logits* $z$) is the mean over time of a last linear layer
# that does not spike.


# %% tags=["function"]
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 5, stride=2, padding=2)  # 1×28×28 → 8×14×14
        self.conv2 = nn.Conv2d(8, 16, 5, stride=2, padding=2)  # → 16×7×7
        self.readout = nn.Linear(16 * 7 * 7, 10)
        options = {"beta": tau, "spike_grad": Spike.apply, "reset_mechanism": "zero", "reset_delay": False}
        self.leaky1, self.leaky2 = snn.Leaky(**options), snn.Leaky(**options)

    def spikes(self, images):  # (B, 1, 28, 28) → spikes of the second layer, (T, B, 16·7·7)
        current = self.conv1((images - digits.mean[0]) / digits.std[0])  # the same at every step
        v1, v2, spikes = self.leaky1.init_leaky(), self.leaky2.init_leaky(), []
        for _ in range(steps):
            s1, v1 = self.leaky1(current, v1)
            s2, v2 = self.leaky2(self.conv2(s1), v2)
            spikes.append(s2.flatten(1))
        return torch.stack(spikes)

    def forward(self, images):
        return self.readout(self.spikes(images)).mean(0)  # logits (B, 10)


def train(loss):
    """A new network that was trained on loss(network, images, labels), and the loss of every batch."""
    torch.manual_seed(0)  # the same first weights and the same order of digits, whatever the loss
    network, order, values = Net(), torch.Generator().manual_seed(0), []
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(epochs):
        for images, labels, _ in digits.train.batches(64, order):
            optimiser.zero_grad()
            value = loss(network, images, labels)
            value.backward()
            optimiser.step()
            values.append(value.item())
    return network.eval(), values


# %%
vanilla, losses = train(lambda network, images, labels: F.cross_entropy(network(images), labels))

# %% tags=["hide-input"] jupyter={"source_hidden": true}
from statistics import fmean


def correct(network, images):
    """Whether each digit is read correctly, (n,)."""
    with torch.no_grad():
        return network(images).argmax(1) == labels


def accuracy(right):
    """A row of a record: the share of True in `right` with its 95 % interval by Wilson's method."""
    interval = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    return {"value": right.float().mean().item(), "low": interval.low, "high": interval.high, "over": "samples"}


with torch.no_grad():
    logits = vanilla.readout(vanilla.spikes(images))  # (T, n, 10)
so_far = [accuracy(z.argmax(1) == labels) for z in logits.cumsum(0)]  # the answer after 1, 2, ... steps
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.5))
left.plot([fmean(losses[max(0, i - 9) : i + 1]) for i in range(len(losses))], color=words.hue("vanilla"))
left.set(xlabel="batch of 64 digits", ylabel="cross-entropy", ylim=(0, None), title="The loss falls")
drawing.curve(right, range(1, steps + 1), so_far, words.hue("vanilla"), width=1.5)
right.set(xlabel="time steps used", ylabel="test accuracy, %", ylim=(0, 102), xticks=range(1, steps + 1))
right.set_title(f"{100 * so_far[0]['value']:.0f} % after one step, {100 * so_far[-1]['value']:.0f} % after {steps}")
plt.show()
clean = accuracy(correct(vanilla, images))
seen(
    f"after {epochs} epochs on {len(digits.train):,} digits the network reads {reading.percent(clean)} of {samples} "
    "test digits correctly.",
    "tab-ablation",
    "tab-cost",
)

# %% [markdown]
# ## 5. An attack: small changes, chosen by the gradient
# The attacker may change each pixel by at most $\varepsilon$, so the image stays in a small box around the digit, the
# *l∞ ball*. **FGSM** makes one step along the sign of the gradient of the loss. **PGD** makes many small ones, and
# returns to the box after each. Both use the surrogate gradient, as the training does.


# %% tags=["function"]
def gradient(network, images, labels):
    """The gradient of each digit's cross-entropy by its pixels."""
    images = images.detach().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(network(images), labels, reduction="sum"), images)[0]


def fgsm(network, images, labels, eps):
    return (images + eps * gradient(network, images, labels).sign()).clamp(0, 1)


def pgd(network, images, labels, eps, steps, start):
    x = start
    for _ in range(steps):
        x = x + 2.5 * eps / steps * gradient(network, x, labels).sign()
        x = x.clamp(images - eps, images + eps).clamp(0, 1)  # back into the box, pixels from 0 to 1
    return x


def noise(images, eps):
    return (images + eps * (2 * torch.rand_like(images) - 1)).clamp(0, 1)


# %%
eps = eps_255 / 255
torch.manual_seed(1)
start = noise(images, eps)  # PGD starts anywhere in the box
attacked = {"FGSM": fgsm(vanilla, images, labels, eps), "PGD": pgd(vanilla, images, labels, eps, pgd_steps, start)}
broken = correct(vanilla, images) & ~correct(vanilla, attacked["PGD"])
victim = int(broken.float().argmax())  # the first digit that PGD breaks


# %% tags=["hide-input"] jupyter={"source_hidden": true}
def show_answers(network, versions):
    """Versions of the victim, name → image, above the probabilities that the network gives to the ten classes."""
    figure, axes = plt.subplots(2, len(versions), figsize=(2.6 * len(versions), 3.6), height_ratios=[1.7, 1])
    for column, (name, image) in enumerate(versions.items()):
        with torch.no_grad():
            share = network(image[None]).softmax(1)[0]
        answer, truth = int(share.argmax()), int(labels[victim])
        drawing.picture(axes[0, column], image.numpy()).set_title(f"{name}: read as {answer}")
        colour = [".2" if k == truth else drawing.ATTACK if k == answer else ".75" for k in range(10)]
        axes[1, column].bar(range(10), share, color=colour)
        axes[1, column].set(xticks=range(10), ylim=(0, 1), yticks=[0, 1], xlabel=f"class (black: {truth}, the truth)")
    axes[1, 0].set_ylabel("probability")
    plt.show()


show_answers(vanilla, {"digit": images[victim]} | {name: x[victim] for name, x in attacked.items()})
moved = (attacked["PGD"] - images)[victim].abs().max()
seen(
    f"no pixel moved by more than {255 * moved:.0f}/255, and PGD turned {int(broken.sum())} of the "
    f"{int(correct(vanilla, images).sum())} digits that were read correctly into errors, FGSM "
    f"{int((correct(vanilla, images) & ~correct(vanilla, attacked['FGSM'])).sum())}.",
    "fig-attack-ladder",
    "tab-masking-checklist",
)

# %% [markdown]
# ## 6. Noise of the same size, and four times larger
# The first claim of the paper: random changes hurt less than chosen ones, even when they are larger. So the same digits
# again, each pixel changed by a random number between $-\varepsilon$ and $\varepsilon$, and between $-4\varepsilon$ and
# $4\varepsilon$. (Noise that moves every pixel by its full size is stronger; the first notebook below shows both.)

# %%
torch.manual_seed(2)
perturbed = {"digit": images, "noise, ε": noise(images, eps), "noise, 4ε": noise(images, 4 * eps)} | attacked
survived = {name: accuracy(correct(vanilla, x)) for name, x in perturbed.items()}

# %% tags=["hide-input"] jupyter={"source_hidden": true}
show_answers(vanilla, {name: perturbed[name][victim] for name in ("noise, ε", "noise, 4ε", "PGD")})


def show_accuracy(by_network):
    """Accuracy under each perturbation, a row of dots for each network; `by_network`: training → name → row."""
    figure, ax = plt.subplots(figsize=(7, 0.45 * len(survived) + 0.9))
    for i, (training, found) in enumerate(by_network.items()):
        heights = [y + 0.2 * (i - (len(by_network) - 1) / 2) for y in range(len(found))]
        drawing.dots(ax, list(found.values()), heights, words.hue(training), label=words.title(training))
    ax.set(xlim=(0, 100), ylim=(len(survived) - 0.5, -0.5), xlabel=f"accuracy, %, on {samples} test digits")
    ax.set_yticks(range(len(survived)), list(survived))
    ax.grid(axis="x")
    if len(by_network) > 1:
        ax.legend(loc="lower right")
    return ax


percent = {name: f"{100 * row['value']:.0f} %" for name, row in survived.items()}
show_accuracy({"vanilla": survived}).set_title(
    f"Noise of 4ε leaves {percent['noise, 4ε']}, PGD at ε = {eps_255:g}/255 leaves {percent['PGD']}", loc="left"
)
plt.show()
seen(
    f"under noise of size ε the network still reads {reading.percent(survived['noise, ε'])} of {samples} digits, under "
    f"noise of 4ε {reading.percent(survived['noise, 4ε'])}, and under PGD at ε {reading.percent(survived['PGD'])}.",
    "fig-random-vs-adversarial",
    "thm-ratio",
)

# %% [markdown]
# ## 7. SR: train the gradient to be small and sparse
# Let $f_y(x)$ be the probability that the network gives to the true class, and $g = \nabla_x f_y$ its gradient. To
# first order an attack of size $\varepsilon$ changes $f_y$ by $\varepsilon\,\lVert g\rVert_1$, and noise only by about
# $\varepsilon\,\lVert g\rVert_2/\sqrt 3$. The fewer pixels carry the gradient, the closer the two are. The paper
# therefore adds a penalty on $g$ to the loss. Computing $\lVert g\rVert_1$ exactly would take a derivative of a
# derivative; SR takes a **finite difference** along $d = \operatorname{sign} g$:
#
# $$\mathcal L = \mathrm{CE}(z(x), y) + \lambda\,\frac{|f_y(x + h\,d) - f_y(x)|}{h},
# \qquad \frac{f_y(x + h\,d) - f_y(x)}{h} \approx d^\top g = \lVert g\rVert_1$$
#
# The released code of the paper squares the quotient and compares the true class with its strongest rival alone;
# [`fig-sr-variants`](fig-sr-variants.ipynb) compares such forms.


# %% tags=["function"]
def sr_loss(network, images, labels):
    def f(logits):  # f_y, the probability of the true class
        return logits.softmax(1).gather(1, labels[:, None]).squeeze(1)

    x = images.clone().requires_grad_()
    logits = network(x)
    before = f(logits)
    d = torch.autograd.grad(before.sum(), x, retain_graph=True)[0].sign()  # counts as a constant
    after = f(network(images + h * d))
    penalty = ((after - before).abs() / h).mean()
    return F.cross_entropy(logits, labels) + lam * penalty


# %%
sr, sr_losses = train(sr_loss)
seen(
    f"the loss, penalty included, went from {fmean(sr_losses[:10]):.2f} over the first ten batches to "
    f"{fmean(sr_losses[-10:]):.2f} over the last ten; without the penalty it went from {fmean(losses[:10]):.2f} to "
    f"{fmean(losses[-10:]):.2f}.",
    "prop-finite-difference",
    "fig-sr-variants",
)

# %% [markdown]
# ## 8. Before and after
# Three looks at the two networks: how an attack changes their spikes, their gradients $g$, and their accuracy. Each
# network is attacked through its own gradient. *PN*, the participation number
# $\lVert g\rVert_1^2 / \lVert g\rVert_2^2$, says how many pixels share the gradient.

# %%
x = images[:6].clone().requires_grad_()
g = {}  # training → ∇ₓ f_y of six digits
for name, network in {"vanilla": vanilla, "sr": sr}.items():
    f_y = network(x).softmax(1).gather(1, labels[:6, None])
    (g[name],) = torch.autograd.grad(f_y.sum(), x)
l1 = {name: each.flatten(1).norm(p=1, dim=1) for name, each in g.items()}
pixels = {name: (l1[name] / each.flatten(1).norm(dim=1)) ** 2 for name, each in g.items()}  # participation number

attacked_sr = {"FGSM": fgsm(sr, images, labels, eps), "PGD": pgd(sr, images, labels, eps, pgd_steps, start)}
perturbed_sr = perturbed | attacked_sr
survived_sr = {name: accuracy(correct(sr, x)) for name, x in perturbed_sr.items()}

# %% tags=["hide-input"] jupyter={"source_hidden": true}
clean_to_attacked = {"vanilla": (vanilla, attacked["PGD"]), "sr": (sr, perturbed_sr["PGD"])}
figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), sharey=True)
flipped = {}  # training → share of the second layer's spikes and silences that PGD changes, over all digits
for ax, (name, (network, x)) in zip(axes, clean_to_attacked.items(), strict=True):
    with torch.no_grad():
        before, after = network.spikes(images).bool(), network.spikes(x).bool()  # (T, n, 784)
    flipped[name] = (before != after).float().mean().item()
    b, a = before[:, victim, ::8], after[:, victim, ::8]
    for cells, colour, label in (
        (b & a, ".6", "spike"),
        (~b & a, drawing.ATTACK, "added by PGD"),
        (b & ~a, drawing.NOISE["uniform"], "removed by PGD"),
    ):
        t, index = cells.nonzero(as_tuple=True)
        ax.hlines(index, t + 0.62, t + 1.38, color=colour, linewidth=1.8, label=label)
    ax.set(xlim=(0.4, steps + 0.6), ylim=(98.5, -1.5), xticks=range(1, steps + 1), xlabel="time step t")
    ax.set_title(f"{words.title(name)}: {100 * (b != a).float().mean():.0f} % changed")
axes[0].set_ylabel("every eighth neuron of layer 2")
figure.suptitle("What PGD changes in the answer of the second layer to one digit", fontsize=9)
axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

figure, axes = plt.subplots(3, 6, figsize=(9, 4.8))
for column in range(6):
    drawing.picture(axes[0, column], images[column].numpy())
    for line, (name, each) in enumerate(g.items(), start=1):
        ax, limit = axes[line, column], each[column].abs().max()  # a scale of its own for each map
        ax.imshow(each[column, 0], cmap="RdBu_r", vmin=-limit, vmax=limit)
        ax.set(xticks=[], yticks=[])
        ax.set_title(f"‖g‖₁ = {l1[name][column]:.2f}\nPN = {pixels[name][column]:.0f} pixels", fontsize=8)
fewer = int((pixels["sr"] < pixels["vanilla"]).sum())
figure.suptitle(
    f"SR's gradient sits on fewer pixels for {fewer} of 6 digits (colours: each map on its own scale)", fontsize=9
)
for ax, name, colour in zip(axes[:, 0], ("digit", "g, vanilla", "g, SR"), (".2", *map(words.hue, g)), strict=True):
    ax.set_ylabel(name, color=colour, fontweight="bold")
plt.show()

percent_sr = f"{100 * survived_sr['PGD']['value']:.0f} %"
show_accuracy({"vanilla": survived, "sr": survived_sr}).set_title(
    f"PGD at ε = {eps_255:g}/255 leaves vanilla {percent['PGD']} and SR {percent_sr}", loc="left"
)
plt.show()
table = ["| | vanilla | SR |", "|:--|:--|:--|"]
table += [f"| {name} | {reading.percent(survived[name])} | {reading.percent(survived_sr[name])} |" for name in survived]
table += ["", f"Accuracy on {samples} test digits, with 95 % intervals (Wilson) over digits."]
display(Markdown("\n".join(table)))
seen(
    f"PGD changes {100 * flipped['vanilla']:.1f} % of the answers of vanilla's second layer and "
    f"{100 * flipped['sr']:.1f} % of SR's, and leaves {reading.percent(survived['PGD'])} and "
    f"{reading.percent(survived_sr['PGD'])} of the digits. This is one network of each training under one attack; with "
    f"{alone['n']} seeds of a similar network and the worst case of all attacks, SR - vanilla is "
    f"{reading.points(alone)}.",
    "tab-ablation",
    "fig-gradient-maps",
    "fig-spikes",
    "fig-lambda",
)

# %% [markdown]
# ## 9. Judge a network
# One attack proves nothing: a training may only have made its gradient useless to the attacker (*gradient masking*).
# `paperlib.judge` tries several attacks, one of which needs no gradient. First on the network above, then on one that
# this companion's SR has trained, which `paperlib.load` gives. Any `nn.Module` of your own can take their place.

# %%
few = {"images": images[:judged], "labels": labels[:judged], "eps": eps, "bounds": (0, 1)}
ours = paperlib.judge(sr, **few, budget="quick")
display(ours)

# %%
loaded = paperlib.judge(paperlib.load(profile, "sr"), **few, budget="quick")
display(loaded)
seen(
    f"whichever of these attacks is made, the network above still reads {100 * ours.worst_case:.0f} % of {ours.n} "
    f"digits correctly, and the loaded one {100 * loaded.worst_case:.0f} %.",
    "your-network",
    "fig-attack-ladder",
)

# %% [markdown]
# ## 10. Play
# In the explorer you choose a digit, a training and an attack by hand:
# [figures/laptop/explorer.html](../figures/laptop/explorer.html). GitHub and Colab do not show it inside a notebook;
# there, download the file and open it in a browser.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
if (paths.FIGURES / "laptop" / "explorer.html").exists():
    page = IFrame("../figures/laptop/explorer.html", width="100%", height=760)
    display({"text/html": page._repr_html_(), "text/plain": "the explorer"}, raw=True)
else:
    print("figures/laptop/explorer.html is missing here; `python -m paperlib export-explorer` makes it.")

# %% [markdown]
# ## Exercises
# Change the parameters at the top, and run all cells again. Guess first; the answers are folded.
#
# **1. A leak.** Set `tau` to 0.5. Which neurons of step 1 fall silent, and does the network still learn?
# <details><summary>Answer</summary>
#
# A constant current I cannot raise the potential above I/(1 - τ), so neurons with I below 1 - τ never spike. The
# network learns all the same, because its weights adapt. [`fig-timesteps-and-leak`](fig-timesteps-and-leak.ipynb) asks
# what the leak does to SR.
# </details>
#
# **2. A narrow surrogate.** Set `gamma` to 0.2. PGD now breaks far fewer digits of the vanilla network. Is that network
# more robust? Ask `paperlib.judge(vanilla, **few, budget="quick")`.
# <details><summary>Answer</summary>
#
# No. Only neurons very near their threshold pass a gradient now, so PGD is blinded: *gradient masking*. Square, which
# needs no gradient, breaks more digits than PGD, and `judge` marks PGD's number with †. SR, whose direction $d$ comes
# from the same gradient, learns badly. [`fig-surrogate-width`](fig-surrogate-width.ipynb) attacks with other widths
# than those of the training.
# </details>
#
# **3. More steps.** Set `pgd_steps` to 1, 5 and 100. Does PGD break more?
# <details><summary>Answer</summary>
#
# On the vanilla network most of the digits fall in the first few steps, and beyond 20 hardly one more. On SR's network
# one step does nearly as much as a hundred, as it would if the loss were linear within the box.
# </details>
#
# **4. Extreme sizes.** What must happen at ε = 0, and at ε = 255/255? Check it with `eps_255`.
# <details><summary>Answer</summary>
#
# At ε = 0 neither noise nor attack may change the accuracy; if it changes, the evaluation itself alters the images. At
# ε = 255/255 the attacker may paint any image, so PGD must bring the accuracy to about 0; if it does not, the attack is
# broken or the gradient is masked. [`tab-masking-checklist`](tab-masking-checklist.ipynb) asks such questions.
# </details>
#
# **5. The price.** Set `lam` to 0, 0.03 and 0.5. What does robustness cost?
# <details><summary>Answer</summary>
#
# With 0 SR is vanilla training: the same network comes out. With 0.03 it gives part of the robustness at little cost.
# With 0.5 it loses many clean digits, and with them robust ones: a digit that is misread without an attack does not
# survive one. [`fig-lambda`](fig-lambda.ipynb) draws the whole curve.
# </details>
#
# **6. A stronger attack.** Does SR survive `paperlib.judge(sr, **few, budget="standard")`?
# <details><summary>Answer</summary>
#
# For the most part. APGD and Square, with more passes, break digits that PGD did not, so accuracy under PGD alone
# promises too much. [`fig-attack-ladder`](fig-attack-ladder.ipynb) adds one attack after another, over five seeds. No
# list of attacks proves robustness; only a [certificate](../docs/glossary.md#certificate) could.
# </details>
