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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/sparse-gradients-companion/blob/main/notebooks/tab-masking-checklist.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/OWNER/sparse-gradients-companion/main?labpath=notebooks%2Ftab-masking-checklist.ipynb)

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
# # Is the robustness real, or does the gradient hide it?
# **The paper says** (C3) that sparse gradients make networks robust. An attack that follows a gradient also fails where
# the gradient is useless, and then its number overstates robustness (Athalye et al., arXiv 1802.00420; Carlini et al.,
# arXiv 1902.06705).
#
# **You will see** the checklist of those two papers, check by check and training by training, each with its number,
# interval and verdict; and one network whose logits are multiplied by c, which makes no network more robust.
#
# **Time:** a minute on trained networks.

# %% tags=["parameters"]
profile: str = "laptop"  # which file under params/
eps_255: float = 32.0  # radius of every attack but two, in units of 1/255
radii_255: list[float] = [8.0, 16.0, 32.0, 48.0]  # among which the accuracy must not rise
pgd_steps: int = 20  # steps of the PGD that is checked, each of length 2.5 ε / steps
long_steps: int = 100  # steps of the longer PGD, of the unbounded one, and of APGD in the strongest attack
queries: int = 2000  # forward passes of Square, alone and in the strongest attack; random search has a tenth as many
substitute: str = "at"  # the training whose network transferred examples are made on
scales: list[float] = [0.01, 0.1, 1.0, 10.0, 100.0]  # factors of the logits
seeds: int = 1  # of each training the first so many networks
samples: int = 100  # test images
checkpoints: list[str] = []  # folders under checkpoints/ to look at instead of the profile's networks
device: str = "auto"  # auto, cpu, cuda or mps

# %% tags=["asks"]
from IPython.display import Markdown

from paperlib import artifacts, runs
from paperlib.artifacts import claims
from paperlib.attacks import protocols
from paperlib.measures import accuracy, checklist
from paperlib.profiles import selections

run = runs.begin("tab-masking-checklist", globals())
networks = selections.chosen(run.profile, checkpoints, seeds)
budget = {"steps": pgd_steps, "long_steps": long_steps, "queries": queries}
sources = {e.key: selections.substitute(run.profile, substitute, e) for e in networks}
checklists = {e.key: protocols.checklist(eps_255, radii_255, source=sources[e.key], **budget) for e in networks}
checks = run.ask(networks, lambda e: checklists[e.key].attacks, samples=samples)

# %% [markdown]
# ## The rule, before the numbers
# Each check has a number and a limit. It has **passed** where the number lies on the good side of the limit or at it,
# **failed** where the whole 95 % interval lies on the bad side, and is **undecided** between these. A check that fails
# says that the gradient attack's number overstates robustness. One that passes says that this symptom is absent, and
# no more; a difference of exactly 0 passes.
#
# The strongest attack is PGD, then APGD, then Square from its result, as in `fig-attack-ladder`. Where another attack
# breaks more than it beyond chance, the worst case of that notebook is not the worst.
#
# The gradient attack is PGD by the network's own backward rule. *Another network* is one of the training `substitute`
# and another seed, the same training for all. A training's images are pooled over its networks where there are several.

# %%
found = checks.evaluated()

# %% [markdown]
# ## The scale control
# Multiply the logits of one network by c: no decision changes, so no robustness can. It is the first network above, of
# vanilla training, and that one only, because the attack is tested here and not the network. At a large c the softmax
# of a confident network rounds to 1 and the gradient of its cross-entropy to 0; at a small c all classes are about as
# likely, and the gradient aims at their average and not at the nearest one. The DLR loss divides the scale out.

# %%
first, test = next(run.opened(networks)), run.data.test.take(samples)
control = checklist.scale_control_rows(first, test, scales, eps_255=eps_255, steps=pgd_steps)
record = run.save(checklist.checklist_rows(found, checklists) + control + accuracy.accuracy_rows(found))
artifacts.draw(record)

# %% [markdown]
# Read the picture by its rows: the first four ask whether an attack that should be weaker broke more than PGD, the
# fifth whether any broke more than the strongest attack, the others whether PGD behaves as a working attack must. Where
# a row has several numbers (one for each attack, for each pair of radii, for each c) the worst one stands there. A red
# cell names a number in the other tables that should not be believed as it stands.
#
# This list sees what attacks find, wherever they find it; it does not see why. `fig-landscape` shows the loss along the
# gradient and along one random direction. There every gradient may lead uphill while the search without gradients fails
# a network here: a spiking network is piecewise constant, and some of its steps down lie where no gradient points. So
# the two do not contradict each other: a gradient that is useful need not be the best attack.
#
# ## The table

# %%
Markdown(artifacts.table(record))

# %% [markdown]
# ## What was found

# %%
Markdown(claims.finding(record))
