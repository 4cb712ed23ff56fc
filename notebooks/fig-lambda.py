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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/sparse-gradients-companion/blob/main/notebooks/fig-lambda.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/OWNER/sparse-gradients-companion/main?labpath=notebooks%2Ffig-lambda.ipynb)

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
# # How strongly should sparsity be regularised?
# **The paper says** (C3) that regularising the sparsity of the gradient (SR) trains more robust networks. The strength
# of the regularisation is one weight, λ; the paper's own values are not at hand here. Too small a λ changes nothing,
# too large a λ costs clean accuracy or breaks the training.
#
# **You will see** clean accuracy and accuracy under PGD against λ, on **validation** images; then the two against each
# other, with the λ that validation data choose and the one that this companion uses. The choice never sees a test
# image. The parameter `training` may name another training that has a weight, AT+SR or a rival.
#
# **Time:** 1 minute on trained networks, 5 from nothing on two cores.

# %% tags=["parameters"]
profile: str = "laptop"  # which file under params/
training: str = "sr"  # whose weight is swept: any training or rival with a lam
lambdas: list[float] = [0.001, 0.003, 0.006, 0.01, 0.02, 0.03, 0.06]  # weights; vanilla networks stand for 0
seeds: list[int] = [0, 1, 2]  # one network each
eps_255: float = 32.0  # radius of the attack, in units of 1/255
pgd_steps: int = 20  # steps of PGD, each of length 2.5 ε / steps
tolerance: float = 0.01  # how much clean accuracy the choice may cost
samples: int = 500  # validation images
device: str = "auto"  # auto, cpu, cuda or mps

# %% tags=["asks"]
from IPython.display import Markdown

from paperlib import artifacts, attacks, runs
from paperlib.artifacts import claims
from paperlib.measures import accuracy
from paperlib.profiles import selections

run = runs.begin("fig-lambda", globals())
networks = run.profile.experiments("vanilla", seeds=seeds) + selections.sweep(run.profile, lambdas, seeds, training)
attack = attacks.standard("pgd", eps_255 / 255, steps=pgd_steps)
validated = run.ask(networks, [None, attack], samples=samples, split="validation")

# %% [markdown]
# The rule, fixed before the numbers: of all λ whose mean clean accuracy lies at most `tolerance` below that of λ = 0,
# the one with the highest mean accuracy under PGD.

# %%
found = validated.evaluated()

# %%
record = run.save(
    accuracy.mean_rows(found)
    + accuracy.accuracy_rows(found)
    + accuracy.choice_rows(found, tolerance, used=run.profile.weight(training))
)
artifacts.draw(record)

# %% [markdown]
# Right, a dot is the mean over seeds and its cross the two t intervals, which may reach beyond the frame. Where a
# network's clean accuracy fell below half of the vanilla networks' mean, its λ is named but not shown; a loss that is
# not finite stops the run and names its λ and seed.
#
# ## The numbers

# %%
Markdown(artifacts.table(record))

# %% [markdown]
# ## What was found

# %%
Markdown(claims.finding(record))
