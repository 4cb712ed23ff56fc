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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/sparse-gradients-companion/blob/main/notebooks/fig-random-vs-adversarial.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/OWNER/sparse-gradients-companion/main?labpath=notebooks%2Ffig-random-vs-adversarial.ipynb)

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
# # Do random and adversarial perturbations hurt equally?
# **The paper says** (C1) that spiking networks bear random noise better than attacks, even when the noise is larger.
#
# **You will see** accuracy against ε: uniform noise and random-sign noise at ε, 2ε and 4ε beside PGD at ε, one network
# a seed. The vertical distance between the curves is the claim.
#
# **Time:** 4 minutes on trained networks, 6 from nothing on two cores.

# %% tags=["parameters"]
profile: str = "laptop"  # which file under params/
training: str = "vanilla"  # which of its trainings is looked at
eps_255: list[float] = [8.0, 16.0, 32.0, 48.0]  # radii of the attack, in units of 1/255
factors: list[int] = [1, 2, 4]  # the noise is this many times larger than the attack
pgd_steps: int = 20  # steps of PGD, each of length 2.5 ε / steps
samples: int = 1000  # test images
device: str = "auto"  # auto, cpu, cuda or mps

# %% tags=["asks"]
from IPython.display import Markdown

from paperlib import artifacts, attacks, runs
from paperlib.artifacts import claims
from paperlib.attacks import protocols
from paperlib.measures import accuracy

run = runs.begin("fig-random-vs-adversarial", globals())
networks = run.profile.experiments(training)
louder = sorted({k * e for k in factors for e in eps_255})
noise = [attacks.standard(law, eps / 255) for law in protocols.RANDOM for eps in louder]
attacked = [attacks.standard("pgd", eps / 255, steps=pgd_steps) for eps in eps_255]
clean = run.ask(networks, [None], samples=samples)
noisy = run.ask(networks, noise, samples=samples)
adversarial = run.ask(networks, attacked, samples=samples)

# %% [markdown]
# Two laws of noise: **uniform**, δ ~ ε·U[-1, 1], the random perturbation of the paper's theorem, and **random signs**,
# δ = ±ε, which has three times its energy and sits at corners of the ball, where attacks live too. Every image gets one
# draw, and perturbed images are clamped to the data's bounds, as those of every attack are.
#
# PGD ascends the cross-entropy from a random start. A sample counts as broken at its first misclassified iterate.

# %%
under_noise, under_attack = noisy.evaluated(), adversarial.evaluated()
everything = clean.evaluated() + under_noise + under_attack

# %% [markdown]
# Clamping takes energy from the noise: where most pixels are exactly 0, as in digits, half of each draw points outside
# the image's bounds and is cut off. The share that is left is kept beside the accuracies, because clamped noise is not
# the noise of the theorem.

# %%
record = run.save(
    accuracy.mean_rows(everything)
    + accuracy.accuracy_rows(everything)
    + accuracy.gap_rows(under_noise, under_attack, factors=factors)
    + accuracy.energy_rows(run.data.test.take(samples), noise)
)
artifacts.draw(record)

# %% [markdown]
# ## The numbers

# %%
Markdown(artifacts.table(record))

# %% [markdown]
# ## What was found

# %%
Markdown(claims.finding(record))
