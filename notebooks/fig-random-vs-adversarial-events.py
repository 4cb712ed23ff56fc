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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/sparse-gradients-companion/blob/main/notebooks/fig-random-vs-adversarial-events.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/OWNER/sparse-gradients-companion/main?labpath=notebooks%2Ffig-random-vs-adversarial-events.ipynb)

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
# # Do random and adversarial perturbations hurt equally on event data?
# **The paper says** (C4) that what holds on images holds on event data as well: random noise hurts less than an attack,
# even when the noise is larger (C1).
#
# **You will see** two attacks beside two kinds of noise. In *counts* every cell of every frame may move by ε: PGD at ε
# beside uniform and random-sign noise at ε, 2ε and 4ε. In *whole events* a budget of k events may be added or removed:
# the attack chooses them by gradient, the noise at random, k, 2k and 4k of them.
#
# **Time:** a minute on trained networks, 3 from nothing on two cores.

# %% tags=["parameters"]
profile: str = "laptop"  # which file under params/; its entry `events` names data, network and trainings
trainings: list[str] = ["vanilla", "sr"]  # which of them are looked at
eps_counts: list[float] = [0.05, 0.1, 0.2]  # radii of the attack on counts, in events of a cell and frame
flips: list[int] = [20, 50, 100]  # budgets of the attack on whole events
factors: list[int] = [1, 2, 4]  # the noise is this many times larger than the attack
pgd_steps: int = 10  # steps of PGD, each of length 2.5 ε / steps
flip_steps: int = 10  # rounds in which the attack on whole events spends its budget
samples: int = 100  # test recordings
device: str = "auto"  # auto, cpu, cuda or mps

# %% tags=["asks"]
from IPython.display import Markdown

from paperlib import artifacts, runs
from paperlib.artifacts import claims
from paperlib.attacks import protocols
from paperlib.measures import accuracy

run = runs.begin("fig-random-vs-adversarial-events", globals(), on_events=True)
networks = run.profile.of(trainings)
noise, attacked = protocols.random_on_events(eps_counts, flips, factors, steps=pgd_steps, flip_steps=flip_steps)
clean = run.ask(networks, [None], samples=samples)
noisy = run.ask(networks, noise, samples=samples)
adversarial = run.ask(networks, attacked, samples=samples)

# %% [markdown]
# Perturbed counts are clamped to the data's own bounds, from 0 to the largest count of any cell, never to [0, 1]. Noise
# and PGD leave counts that are no whole numbers, as in the paper. Flips are recordings that a camera could have made:
# every cell keeps a whole count, and one cell changes by one event at most. Among random flips every feasible change is
# equally likely; most cells are empty, so most of them add an event.

# %%
under_noise, under_attack = noisy.evaluated(), adversarial.evaluated()
everything = clean.evaluated() + under_noise + under_attack

# %%
record = run.save(
    accuracy.mean_rows(everything)
    + accuracy.accuracy_rows(everything)
    + accuracy.gap_rows(under_noise, under_attack, factors=factors)
)
artifacts.draw(record)

# %% [markdown]
# The claim is the vertical distance between the attack's line and those of the noise. It is judged on vanilla training,
# where noise is four times larger.
#
# ## The numbers

# %%
Markdown(artifacts.table(record))

# %% [markdown]
# ## What was found

# %%
Markdown(claims.finding(record))
