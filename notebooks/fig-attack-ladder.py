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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/sparse-gradients-companion/blob/main/notebooks/fig-attack-ladder.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/OWNER/sparse-gradients-companion/main?labpath=notebooks%2Ffig-attack-ladder.ipynb)

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
# # How far does each training fall under stronger and stronger attacks?
# **The paper says** (C3) that SR makes networks robust. Later work says that the robustness of spiking networks has
# been overstated by weak gradients and short attacks (arXiv 2512.22522).
#
# **You will see** the same networks under noise, FGSM, PGD, APGD, and a long search that needs no gradient. Does SR
# keep its advantage on the last rung, at three radii, and has the search reached its plateau?
#
# **Time:** about 20 minutes on trained networks, 25 from nothing on two cores (estimated on an AMD EPYC).

# %% tags=["parameters"]
profile: str = "laptop"  # which file under params/
eps_255: float = 32.0  # radius of the ladder, in units of 1/255
radii_255: list[float] = [16.0, 48.0]  # further radii, for clean images, PGD and the last rung alone
pgd_steps: int = 20  # steps of PGD, each of length 2.5 ε / steps
long_steps: int = 100  # steps of APGD on each of its two losses
queries: int = 2000  # forward passes of Square, behind APGD
seeds: int = 10  # of each training the first so many networks
samples: int = 1000  # test images, clean and under noise, FGSM and PGD
strong_samples: int = 50  # of these the first so many under APGD and Square
checkpoints: list[str] = []  # folders under checkpoints/ to look at instead of the profile's networks
device: str = "auto"  # auto, cpu, cuda or mps

# %% tags=["asks"]
from IPython.display import Markdown

from paperlib import artifacts, attacks, runs
from paperlib.artifacts import claims
from paperlib.attacks import protocols
from paperlib.measures import accuracy, certified
from paperlib.measures.queries import query_rows
from paperlib.profiles import selections

run = runs.begin("fig-attack-ladder", globals())
budget = {"steps": pgd_steps, "long_steps": long_steps, "queries": queries}
noise, fgsm, pgd, apgd, worst = protocols.rungs(eps_255, **budget)
weak = [None, noise, fgsm, pgd, *(attacks.standard("pgd", e / 255, steps=pgd_steps) for e in radii_255)]
strong = [apgd, worst, *(protocols.strongest(e, **budget) for e in radii_255)]
networks = selections.chosen(run.profile, checkpoints, seeds)
first, second = run.ask(networks, weak, samples=samples), run.ask(networks, strong, samples=strong_samples)

# %% [markdown]
# * **Uniform noise, FGSM and PGD** stand alone.
# * **APGD** is the worst case of PGD and of APGD on two losses: the cross-entropy, and the DLR loss, which no scale of
#   the logits can hide.
# * **Square** is a random search that never asks for a gradient. It starts from the better of APGD's two results, with
#   small windows: a spiking network is piecewise constant, and has steps down that no gradient shows.
#
# Images come in two phases: all under PGD, the first `strong_samples` under the stronger attacks too. What these
# break beyond PGD on the few is subtracted from what PGD leaves of all, which is more exact than the few alone.
#
# An image that PGD or APGD broke is not attacked again. The last rung is the strongest attack here, the same in every
# notebook that names a worst case of all attacks. Other backward rules and transferred examples are no part of it; they
# are in `tab-whitebox`, `fig-surrogate-width` and `tab-blackbox`.

# %%
wide = first.evaluated()
narrow = accuracy.in_two_phases(second.evaluated(), wide)

# %% [markdown]
# Below the attacks lies what is proved: the share of these images whose decision no perturbation within the radius can
# change (`fig-certified`).

# %%
radii = [e / 255 for e in (eps_255, *radii_255)]
proved = certified.certified(run.opened(networks), run.data.test.take(strong_samples), radii)

# %%
found = wide + narrow
record = run.save(
    accuracy.mean_rows(found)
    + accuracy.pass_rows(found)
    + accuracy.difference_rows(found, "sr", "vanilla")
    + accuracy.difference_rows(found, "at+sr", "at")
    + query_rows([e for e in narrow if e.attack == worst], queries=queries)
    + accuracy.accuracy_rows(found)
    + certified.certified_rows(proved)
)
artifacts.draw(record)

# %% [markdown]
# Left, each training on every rung, with a dotted line at its certified accuracy; the passes below are forward and
# backward passes per image. In the middle, the last rung while Square spends its queries, on the images of the second
# phase alone. Right, what SR changes on each rung and at the other radii: robustness that only weak attacks fail to
# break would disappear from top to bottom.
#
# ## The table

# %%
Markdown(artifacts.table(record))

# %% [markdown]
# ## What was found

# %%
Markdown(claims.finding(record))
