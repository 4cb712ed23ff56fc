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
# **You will see** the same networks under an ever stronger worst case: noise, FGSM, PGD, other backward rules, rules of
# other widths, rules that adapt to the network, APGD, an attack without gradients, and examples made on another
# network. Does SR keep its advantage on the last rung?
#
# **Time:** 2 minutes on trained networks, 5 from nothing on two cores.

# %% tags=["parameters"]
profile: str = "laptop"  # which file under params/
eps_255: float = 32.0  # radius of every attack, in units of 1/255
pgd_steps: int = 10  # steps of PGD, each of length 2.5 ε / steps
gammas: list[float] = [0.5, 2.0]  # widths of the backward rules
long_steps: int = 100  # steps of SA-PGD and of APGD
queries: int = 1000  # forward passes of Square, behind APGD
substitute: str = "at"  # the training whose network transferred examples are made on
seeds: int = 5  # of each training the first so many networks
samples: int = 25  # test images
checkpoints: list[str] = []  # folders under checkpoints/ to look at instead of the profile's networks
device: str = "auto"  # auto, cpu, cuda or mps

# %% tags=["asks"]
from IPython.display import Markdown

from paperlib import artifacts, runs
from paperlib.artifacts import claims
from paperlib.attacks import protocols
from paperlib.measures import accuracy
from paperlib.profiles import selections

run = runs.begin("fig-attack-ladder", globals())
budget = {"steps": pgd_steps, "gammas": gammas, "long_steps": long_steps, "queries": queries}


def ladder(network):
    """Clean images, then the rungs; examples to transfer are made on another network for each."""
    source = selections.substitute(run.profile, substitute, network)
    return [None, *protocols.rungs(eps_255, source=source, **budget)]


climb = run.ask(selections.chosen(run.profile, checkpoints, seeds), ladder, samples=samples)

# %% [markdown]
# A rung is the worst case of all attacks up to there: an image counts as robust while nothing so far has broken it, and
# what is broken is not attacked again. So the accuracy can only fall from rung to rung, whatever the order.
#
# * **four rules:** PGD differentiates spikes by the released code's four rules: the network's own triangle, a sigmoid,
#   an arc tangent, and the rate rule. The forward pass is always the network's own.
# * **widths:** PGD by triangles, rectangles and exponentials, narrower and wider than those of the training.
# * **adaptive rules:** SA-PGD with ASSG, whose rule follows each neuron's own membrane, and PGD with PDSG, whose rule
#   follows the spread of the membranes over the batch.
# * **APGD:** on the cross-entropy, and on the DLR loss, which no scale of the logits can hide.
# * **Square:** a random search that never asks for a gradient, from where APGD ended: a spiking network is piecewise
#   constant, and has steps down that no gradient shows.
# * **transfer:** PGD made on a separately trained network.

# %%
found = climb.evaluated()
record = run.save(
    accuracy.mean_rows(found)
    + accuracy.pass_rows(found)
    + accuracy.difference_rows(found, "sr", "vanilla")
    + accuracy.difference_rows(found, "at+sr", "at")
    + accuracy.accuracy_rows(found)
)
artifacts.draw(record)

# %% [markdown]
# Left, how much each training loses from rung to rung; the passes under each rung are forward and backward passes per
# image, up to there. Right, what SR changes on each rung: robustness that only weak attacks fail to break would
# disappear from top to bottom.
#
# ## The table

# %%
Markdown(artifacts.table(record))

# %% [markdown]
# ## What was found

# %%
Markdown(claims.finding(record))
