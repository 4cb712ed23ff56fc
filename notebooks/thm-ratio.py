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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/sparse-gradients-companion/blob/main/notebooks/thm-ratio.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/OWNER/sparse-gradients-companion/main?labpath=notebooks%2Fthm-ratio.ipynb)

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
# # The ratio theorem: 3 ≤ ρ_adv/ρ_rand ≤ 3·‖∇f_y‖₀
# **The paper says** (C2) that the gap between a network's adversarial and its random vulnerability is bounded by the
# sparsity of the gradient of f_y, the probability of the true class.
#
# **You will see** the proof line by line with code that checks each, the ratio of real images on four trainings in
# three regimes, where it leaves its bounds and why, and which measure of sparsity predicts anything.
#
# **Time:** a minute on trained networks.

# %% tags=["parameters"]
profile: str = "laptop"  # which file under params/
seeds: int = 3  # how many networks of each training
samples: int = 1000  # test images for gradients and for surviving the attack
true_samples: int = 100  # of these, images measured with the true forward pass
smooth_samples: int = 20  # and with the surrogate-smooth one, which is slower
eps_255: list[float] = [0.0255, 0.255, 2.55, 16, 48]  # radii in units of 1/255
draws: int = 32  # of noise, for each image and radius
attack_steps: int = 10  # of the attack that estimates the adversarial vulnerability
exact_draws: int = 20000  # of noise, where the ratio is known in closed form
worst_draws: int = 1000  # of noise, for the worst violations
thresholds: list[float] = [0.0, 0.0001, 0.01]  # of l0, which is reported with its threshold alone
pgd_eps_255: float = 32  # radius of the attack whose survivors are predicted
pgd_steps: int = 20  # steps of that attack
scales: list[float] = [0.1, 0.3, 1, 3, 10, 30]  # factors of the logits
scale_eps_255: float = 16  # radius of the scale control
device: str = "auto"  # auto, cpu, cuda or mps

# %% tags=["asks"]
import itertools

import torch
from IPython.display import Markdown

from paperlib import artifacts, attacks, labels, runs, theory
from paperlib.artifacts import claims
from paperlib.measures import exact, predictors, ratio
from paperlib.profiles import selections

run = runs.begin("thm-ratio", globals())
networks, everyone = selections.first(run.profile, seeds), run.profile.all()
attack = attacks.standard("pgd", pgd_eps_255 / 255, steps=pgd_steps)
gradients_of = run.ask(everyone)
attacked = run.ask(networks, [attack], samples=samples)

# %% [markdown]
# ## The proof, a line at a time
# Two vulnerabilities of f_y at an image x, with ε the radius and m pixels:
#
# * random: ρ_rand(ε) = E (f_y(x + εδ) - f_y(x))² over δ ~ U[-1, 1]^m;
# * adversarial: ρ_adv(ε) = sup (f_y(x + εδ) - f_y(x))² over ‖δ‖∞ ≤ 1.
#
# **First order.** Replace f_y(x + εδ) - f_y(x) by ε·gᵀδ with g = ∇ₓ f_y(x). All that follows is about this linear f;
# take one of eight pixels, so that everything can be enumerated.

# %%
g = torch.tensor([[3.0, -1.0, 0.5, 0.0, -2.0, 0.25, 1.0, 0.0]])
eps, x, y = 0.1, torch.zeros(1, 8), torch.tensor([0])


def f(images):
    return images @ g.T


# %% [markdown]
# **Line 1:** the pixels of uniform noise are independent with variance 1/3, E[δδᵀ] = I/3.

# %%
delta = theory.LAWS["uniform"].draw(torch.empty(1_000_000, 8), torch.Generator().manual_seed(0))
(delta.T @ delta / len(delta)).numpy().round(2) + 0

# %% [markdown]
# **Line 2:** therefore ρ_rand = ε²·gᵀE[δδᵀ]g = ε²‖g‖₂²/3.

# %%
random = theory.random_vulnerability(f, x, y, eps, draws=20_000, generator=torch.Generator().manual_seed(0))
by_formula, _ = theory.linear_vulnerabilities(g, eps)
f"{random.value.item():.5f} ± {random.error.item():.5f} by Monte Carlo, {by_formula.item():.5f} by the formula"

# %% [markdown]
# **Line 3:** a linear function is largest on a box at a corner, at δ = sign g, and there ρ_adv = ε²‖g‖₁².

# %%
corners = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=8)))
_, by_formula = theory.linear_vulnerabilities(g, eps)
f"{(eps * corners @ g.T).square().max().item():.5f} over all 256 corners, {by_formula.item():.5f} by the formula"

# %% [markdown]
# **Line 4:** the ratio of the two is 3‖g‖₁²/‖g‖₂². **Line 5:** ‖g‖₂ ≤ ‖g‖₁ ≤ √‖g‖₀·‖g‖₂, so it lies between 3 and
# 3‖g‖₀; the number ‖g‖₁²/‖g‖₂² itself, the participation number PN, is the sharper bound.

# %%
linear, upper = theory.linear_ratio(g), 3 * theory.l0(g, threshold=0)
f"3 ≤ {linear.item():.2f} ≤ {upper.item()}"

# %% [markdown]
# ### Where the bounds are met, and where the 3 comes from
# One nonzero coordinate meets the lower bound, equal magnitudes the upper; a Gaussian gradient lies at about (2/π)·3m.
# The 3 is 1/E δ² of the uniform law: random signs give 1, a triangular law 6. And where f is not linear within the
# ball, either bound may fail: on the right, a logistic f that is steep at 1/2, and one that is confident.

# %%
by_hand = exact.exact_rows(draws=exact_draws)
artifacts.draw(run.record(by_hand), "exact")

# %%
Markdown(artifacts.table(run.record(by_hand), "exact"))

# %% [markdown]
# ## Trained networks, three regimes
# A spiking network is piecewise constant in its input (arXiv 2505.18023): its true gradient is 0 almost everywhere, and
# the g in use is the **surrogate** one. So the theorem can be read in three ways, and all three are measured:
#
# * *linear*: the ratio 3‖g‖₁²/‖g‖₂² of the surrogate gradient. Here the statement must hold for every image with a
#   gradient; an image without one, g = 0, has no ratio, and is counted.
# * *surrogate-smooth*: the same weights with each spike replaced by the integral of its surrogate, the reset kept. It
#   is another function, whose exact gradient the surrogate formula is.
# * *true forward*: the spiking network as it is deployed, ρ_rand by Monte Carlo, ρ_adv by an attack (both corners along
#   sign g, then conditional gradient). An attack finds too little rather than too much, so the ratios are lower
#   estimates.

# %%
test = run.data.test.take(samples)
gradients = {e.key: predictors.probability_gradients(network, test) for e, network in run.opened(everyone)}
statement = [row for e in everyone for row in ratio.ratio_rows(e, gradients[e.key])]

# %%
opened, budget = list(run.opened(networks)), {"draws": draws, "steps": attack_steps}
shown = {labels.SMOOTH: test.take(smooth_samples), labels.TRUE: test.take(true_samples)}
found = [
    v
    for regime in shown
    for one in opened
    for v in ratio.vulnerabilities(one, shown[regime], regime, eps_255, **budget)
]

# %%
rows = by_hand + statement + ratio.vulnerability_rows(found)
arrays = {
    "quartiles": ratio.quantiles(found),
    "saturation": ratio.saturation(found),
    "pixels": test.images[0].numel(),
}
artifacts.draw(run.record(rows, arrays))

# %% [markdown]
# The upper bound 3‖g‖₀ differs from image to image, and is at most 3 times the number of pixels. So here are the images
# one by one: how many of them lie within both of their bounds with the true forward pass. The first layer's neurons
# receive constant currents, so the distance of an image to the nearest change of one of their spikes is known exactly
# (`paperlib.certificates.still_radius`). At a smaller radius nothing can change: the ratio is 0/0, and there is none.
# Beyond it, where no draw changed f_y, these draws do not determine a ratio, whether the attack changed f_y or not.

# %%
artifacts.draw(run.record(rows, arrays), "outcomes")

# %% [markdown]
# A ratio can fall because ρ_adv falls or because ρ_rand rises, so here are the two themselves:

# %%
artifacts.draw(run.record(rows, arrays), "vulnerabilities")

# %% [markdown]
# ## Where and why first order ends
# From the left: the measured vulnerability over the predicted one, for noise and for the attack; and, at the largest
# radius, the ratio over its upper bound against how confident the network is. At small radii a spiking network is a
# staircase: noise meets many small steps that the surrogate gradient smooths away. At large radii a confident f_y is
# flat where its gradient is taken, and falls steeply within the ball.

# %%
artifacts.draw(run.record(rows, arrays), "first-order")

# %% [markdown]
# ### The worst violations
# Of everything measured with the true forward pass, the image that breaks each bound most, measured anew.

# %%
by_key = {e.key: network for e, network in opened}
worst = ratio.worst_rows(found, by_key, test, draws=worst_draws, steps=5 * attack_steps)
arrays |= {"worst": ratio.pictures(worst, test)}
artifacts.draw(run.record(rows + worst, arrays), "worst")

# %% [markdown]
# ## Which sparsity matters?
# ‖g‖₀ counts exact zeros and is nearly always the number of pixels, so it is shown with its thresholds. Hoyer's measure
# is a function of PN (its rank correlations are PN's with the opposite sign); Gini is another scale-free one; l1 and l2
# are sizes. Blue: over images within a network; red: over networks. The table below has the ratio at every radius.

# %%
predicted = predictors.predictor_rows(gradients, found, attacked.evaluated(), thresholds)
artifacts.draw(run.record(predicted), "sparsity")

# %% [markdown]
# ## The scale control
# Multiply the logits of one network by c: no decision changes, so no robustness can. Whatever moves is not robustness.

# %%
control = predictors.scale_rows(
    opened[0], test.take(true_samples), scales, eps_255=scale_eps_255, thresholds=thresholds, **budget
)
artifacts.draw(run.record(control), "scale")

# %% [markdown]
# ## The numbers

# %%
record = run.save(rows + worst + predicted + control, arrays)
Markdown("\n\n".join(artifacts.table(record, part) for part in artifacts.parts("thm-ratio") if part != "exact"))

# %% [markdown]
# ## What was found

# %%
Markdown(claims.finding(record))
