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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/sparse-gradients-companion/blob/main/notebooks/tab-blackbox.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/OWNER/sparse-gradients-companion/main?labpath=notebooks%2Ftab-blackbox.ipynb)

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
# # How robust are the networks to black-box attacks?
# **The paper says** that SR helps against black-box attacks too. Its code makes them on a second checkpoint of the same
# architecture, and repeats them four times without ever changing that network's backward rule.
#
# **You will see** each training under PGD made on separately trained networks, of the same and of another architecture,
# by one rule and by four that the substitute really uses, and under Square, which only asks for logits; with white-box
# PGD beside them.
#
# **Time:** 1 minute on trained networks, 5 from nothing on two cores.

# %% tags=["parameters"]
profile: str = "laptop"  # which file under params/
eps_255: float = 32.0  # radius, in units of 1/255
substitutes: list[str] = ["vanilla", "at"]  # trainings of the networks that examples are made on
other_network: str = "conv-12-24"  # the other architecture
pgd_steps: int = 20  # steps of PGD, each of length 2.5 ε / steps
queries: int = 1000  # forward passes of Square
seeds: int = 3  # of each training the first so many networks
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

run = runs.begin("tab-blackbox", globals())
kinds = [(training, network) for training in substitutes for network in (None, other_network)]


def attacks_on(target):
    """Clean images, the white box, and attacks that cannot look inside `target`."""
    sources = [selections.substitute(run.profile, training, target, network) for training, network in kinds]
    return protocols.black_box(eps_255, sources=sources, steps=pgd_steps, queries=queries)


outside = run.ask(selections.chosen(run.profile, checkpoints, seeds), attacks_on, samples=samples)

# %% [markdown]
# A substitute never shares its seed with the network under attack. PGD goes on after it has broken the substitute,
# since it has to break another network.

# %%
found = outside.evaluated()

# %%
record = run.save(
    accuracy.mean_rows(found)
    + accuracy.difference_rows(found, "sr", "vanilla")
    + accuracy.difference_rows(found, "at+sr", "at")
    + accuracy.accuracy_rows(found)
)
artifacts.draw(record)

# %% [markdown]
# A black-box attack that breaks more than the white-box one would say that the network's own gradients mislead; such a
# number is marked † in every table.
#
# ## The table

# %%
Markdown(artifacts.table(record))

# %% [markdown]
# ## What was found

# %%
Markdown(claims.finding(record))
