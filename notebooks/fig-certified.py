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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/sparse-gradients-companion/blob/main/notebooks/fig-certified.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/OWNER/sparse-gradients-companion/main?labpath=notebooks%2Ffig-certified.ipynb)

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
# # What can be proved, whatever the attack?
# **The paper says** (C3) that SR makes networks robust. It shows this with attacks, and an attack bounds robust
# accuracy from above only: a better one may come.
#
# **You will see** the bound from below: the share of images of which it is proved that no perturbation within ε changes
# the decision. What lies between the two is undecided. Is SR's advantage there as well?
#
# **Time:** 7 minutes on trained networks, after `fig-attack-ladder`, whose attacks it shares.

# %% tags=["parameters"]
profile: str = "laptop"  # which file under params/
eps_255: list[float] = [2.0, 4.0, 8.0, 16.0, 32.0]  # radii, in units of 1/255
pgd_steps: int = 20  # steps of PGD, each of length 2.5 ε / steps
strong_255: list[float] = [16.0, 32.0]  # the radii of them at which the strongest attack is run, too
long_steps: int = 100  # steps of APGD on each of its two losses
queries: int = 2000  # forward passes of Square, behind APGD
seeds: int = 10  # of each training the first so many networks
samples: int = 200  # test images
attacked_samples: int = 1000  # test images under PGD at these radii
strong_samples: int = 50  # of these the first so many under APGD and Square, too
checkpoints: list[str] = []  # folders under checkpoints/ to look at instead of the profile's networks
device: str = "auto"  # auto, cpu, cuda or mps

# %% tags=["asks"]
from IPython.display import Markdown

from paperlib import artifacts, attacks, runs
from paperlib.artifacts import claims
from paperlib.attacks import protocols
from paperlib.measures import accuracy, certified
from paperlib.profiles import selections

run = runs.begin("fig-certified", globals())
networks = selections.chosen(run.profile, checkpoints, seeds)
attacked = run.ask(
    networks, [None, *(attacks.standard("pgd", e / 255, steps=pgd_steps) for e in eps_255)], samples=samples
)
budget = {"steps": pgd_steps, "long_steps": long_steps, "queries": queries}
strongest = [protocols.strongest(e, **budget) for e in strong_255]
first = run.ask(networks, [attack.members[0] for attack in strongest], samples=attacked_samples)
second = run.ask(networks, strongest, samples=strong_samples)

# %% [markdown]
# `paperlib.certify` carries bounds of the pixels through the network to a bound of the margin between the true class
# and each other class. Where this stays above 0 the decision is proved for the whole ball.
#
# * **The first layer is exact.** With direct encoding a neuron of the first layer receives a constant current I.
#   Without a leak and with a reset to 0 it spikes every ⌈θ/I⌉ steps: it is a quantiser of T + 1 levels, and its output
#   is piecewise constant in the image (on such networks arXiv 2505.18023). The set of its spike trains under a ball is
#   known exactly.
# * **Later layers are bounded by stretches of time.** After a spike at step a, the membrane at step t is the sum of the
#   current from a + 1 to t, until it reaches θ. So all sums of the current over stretches of steps are bounded, and the
#   spikes are the ways through a graph: from a to each step b at which the next spike may be. Bounds of each step alone
#   (S-IBP, arXiv 2205.01625) count a spike twice that comes either early or late. An image that these bounds leave
#   open is tried again with tighter ones: each of the 2^T spike trains of a neuron against all stretches at once. So
#   several spikes cannot each use a current that is there only once.
# * **The readout** is bounded by the differences of its rows, so that what two classes share cancels.
# * **Rounding** is part of the proof: the bounds hold for the network in float32.

# %%
found = certified.certified(run.opened(networks), run.data.test.take(samples), [e / 255 for e in eps_255])
under_attack = attacked.evaluated() + accuracy.in_two_phases(second.evaluated(), first.evaluated())

# %% [markdown]
# A certified image that an attack broke would be a fault, in the proof or in the attack. So the certificates are
# compared with all attacks on these networks that are on disk, from whatever notebook.

# %%
checks = certified.checks(found)
rows = certified.certified_rows(found)
rows += certified.difference_rows(found, "sr", "vanilla") + certified.difference_rows(found, "at+sr", "at")
rows += accuracy.mean_rows(under_attack)
record = run.save(certified.doubted(rows, checks) + certified.check_rows(checks))
artifacts.draw(record)

# %% [markdown]
# A panel for each training: what is certified (solid), accuracy under attack (dashed), and the undecided share in grey.
# The attack is PGD on the certified images. At the radii `strong_255` it is also the worst case of PGD, APGD and Square
# that decides C3 (`fig-attack-ladder`), of more images and in two phases as there; the lower of the two accuracies is
# drawn. Right, what SR changes of the certified share; the middle three radii decide the verdicts.
#
# **Two cautions.** An order of lower bounds is no order of robustness: a network may be robust and hard to prove so.
# And bounds grow with the size of the weights: a training that keeps weights small, or currents away from thresholds,
# is certified more easily at the same robustness. So these lines of the ledger stand beside C3 and do not decide it.
#
# ## The table

# %%
Markdown(artifacts.table(record))

# %% [markdown]
# ## What was found

# %%
Markdown(claims.finding(record))
