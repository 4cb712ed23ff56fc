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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/sparse-gradients-companion/blob/main/notebooks/fig-timesteps-and-leak.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/OWNER/sparse-gradients-companion/main?labpath=notebooks%2Ffig-timesteps-and-leak.ipynb)

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
# # Does SR need time steps, a leak, a reset or spikes at all?
# **The paper says** (C3) that SR makes networks robust; its code trains those of T = 8 steps whose neurons do not leak
# (τ = 1) and whose reset passes gradients on. Reviewers of an earlier version asked for leaky neurons, and whether a
# network without spikes gains as much.
#
# **You will see** what SR gains on vanilla training with fewer and more steps, with leaky neurons, with a detached
# reset, and in the ANN of the same architecture; and where that gain clearly differs from that of the profile's own
# neurons.
#
# **Time:** 2 minutes on trained networks, 4 from nothing on two cores.

# %% tags=["parameters"]
profile: str = "laptop"  # which file under params/
T: list[int] = [1, 4]  # time steps
taus: list[float] = [0.5, 1.0]  # share of the membrane that is left after a step: 1 does not leak
full: bool = False  # False: one thing at a time around the profile's own T, τ and attached reset; True: all of them
lambdas: list[float] = [0.003, 0.01]  # of SR, for every setting to choose from; none: nothing is trained
epochs: int = 3  # of all networks here, which are fewer than the profile's
network: str = ""  # another architecture than the profile's
seeds: list[int] = [0]  # one network each
eps_255: float = 32.0  # radius of every attack, in units of 1/255
pgd_steps: int = 20  # steps of PGD, each of length 2.5 ε / steps
long_steps: int = 100  # steps of APGD on each of its two losses
queries: int = 2000  # forward passes of Square, behind APGD
tolerance: float = 0.05  # how much clean accuracy the choice of λ may cost
samples: int = 20  # validation images, and as many test images
device: str = "auto"  # auto, cpu, cuda or mps

# %% tags=["asks"]
from IPython.display import Markdown

from paperlib import artifacts, attacks, runs
from paperlib.artifacts import claims
from paperlib.attacks import protocols
from paperlib.measures import settings
from paperlib.profiles import selections

run = runs.begin("fig-timesteps-and-leak", globals())
varied = selections.settings(run.profile, T, taus, full=full)
networks = selections.in_settings(run.profile, varied, lambdas, seeds=seeds, epochs=epochs, network=network)
pgd = attacks.standard("pgd", eps_255 / 255, steps=pgd_steps)
worst = protocols.strongest(eps_255, steps=pgd_steps, long_steps=long_steps, queries=queries)
choosing = run.ask(networks, [None, pgd], samples=samples, split="validation")
judging = run.ask(networks, [None, pgd, worst], samples=samples)

# %% [markdown]
# A neuron's membrane is m[t] = τ·v[t-1] + I[t]; it fires where m[t] reaches 1, and v[t] = (1 - s[t])·m[t] starts again
# from 0 after a spike s[t].
#
# * **T:** steps that an image is shown for. With one step there is nothing to leak and nothing to reset: T = 1 is one
#   setting, whatever τ and reset.
# * **τ:** below 1 the neuron forgets.
# * **reset:** attached, the gradient flows through (1 - s[t]) as well; detached, that factor is a constant. The network
#   computes the same, and is trained and attacked by another gradient.
# * **ANN:** the same layers with a ReLU for each neuron; no time, no spikes, and a gradient that is its own.
#
# All networks here are trained anew for `epochs` epochs: a study of its own, whose numbers are not those of the other
# notebooks. What suits one setting need not suit another, so each chooses its λ by the rule of `fig-lambda`, on
# validation images. Where that rule chooses λ = 0, the smallest λ is shown all the same, marked with a star.

# %%
validation, test = choosing.evaluated(), judging.evaluated()

# %%
record = run.save(settings.setting_rows(validation, test, tolerance))
artifacts.draw(record)

# %% [markdown]
# The worst case is PGD, APGD and, from where APGD ended, Square, which asks for no gradient: a setting whose gradients
# mislead is not taken for a robust one. But Square stops after so many `queries`; where more queries would break more,
# the gain is not final: try another number. The setting of the profile's neurons stands in every
# group, shaded.
#
# **What the whiskers say.** With one seed they are over images and compare two single networks. Trained again, each of
# the two may turn out differently; and of twenty differences without any effect, about one has an interval that
# excludes 0, by chance. With more `seeds` the intervals are over networks.
#
# ## The tables
# SR's gain in points, and that gain minus the gain of the profile's neurons, on the same images; then the accuracy of
# every network, also of those at a λ that was not chosen.

# %%
Markdown(artifacts.table(record))

# %% [markdown]
# ## What was found

# %%
Markdown(claims.finding(record))
