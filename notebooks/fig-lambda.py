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
# **You will see** clean accuracy and accuracy under attack against λ, on **validation** images; then the two against
# each other, with the λ that validation data choose and the one that this companion uses; and by the same rule the
# weight of every other training that has one. The choice never sees a test image.
#
# **Time:** 1 minute on trained networks, 5 from nothing on two cores.

# %% tags=["parameters"]
profile: str = "laptop"  # which file under params/
training: str = "sr"  # whose weight is swept: any training or rival with a weight
lambdas: list[float] = [0.003, 0.01, 0.03, 0.06]  # its weights; vanilla networks stand for 0
seeds: list[int] = [0, 1, 2]  # one network each
others: dict = {
    "at+sr": [0.003, 0.01],
    "trades": [1.0, 6.0],
    "trades+sr": [0.001, 0.003],
    "l2": [3.0, 10.0],
    "loss-l1": [0.002, 0.006],
    "exact-l1": [0.1, 0.3],
}  # trainings whose weights are chosen by the same rule, with the weights
other_seeds: list[int] = [0]  # one network each
eps_255: float = 32.0  # radius of the attacks, in units of 1/255
pgd_steps: int = 20  # steps of PGD, each of length 2.5 ε / steps
long_steps: int = 100  # steps of APGD
queries: int = 2000  # forward passes of Square, behind APGD
tolerance: float = 0.05  # how much clean accuracy the choice may cost
samples: int = 500  # validation images, clean and under PGD
strong_samples: int = 20  # of these, images under the strongest attack
device: str = "auto"  # auto, cpu, cuda or mps

# %% tags=["asks"]
from IPython.display import Markdown

from paperlib import artifacts, attacks, runs
from paperlib.artifacts import claims
from paperlib.attacks import protocols
from paperlib.measures import accuracy
from paperlib.profiles import selections

run = runs.begin("fig-lambda", globals())
networks = run.profile.experiments("vanilla", seeds=seeds) + selections.sweep(run.profile, lambdas, seeds, training)
rivals = selections.sweeps(run.profile, others, other_seeds)
pgd = attacks.standard("pgd", eps_255 / 255, steps=pgd_steps)
worst = protocols.strongest(eps_255, steps=pgd_steps, long_steps=long_steps, queries=queries)
everyone = selections.once(networks + [e for swept in rivals.values() for e in swept])
validated = run.ask(everyone, [None, pgd], samples=samples, split="validation")
attacked = run.ask(everyone, [worst], samples=strong_samples, split="validation")

# %% [markdown]
# The rule, fixed before the numbers: of all weights whose mean clean accuracy lies at most `tolerance` below that of
# the same training without the penalty, the one with the highest mean accuracy in the worst case. The worst case is
# estimated in two phases: PGD on all images, the strongest attack on the first `strong_samples` of them.

# %%
first = validated.evaluated()
found = first + accuracy.in_two_phases(attacked.evaluated(), first)

# %%
swept = [e for e in found if e.experiment in networks]
record = run.save(
    accuracy.mean_rows(swept)
    + accuracy.accuracy_rows(swept)
    + accuracy.choice_rows(swept, tolerance, used=run.profile.weight(training))
    + accuracy.weight_rows(found, rivals, tolerance, used=run.profile.weight)
)
artifacts.draw(record)

# %% [markdown]
# Right, a dot is the mean over networks and its cross the two intervals, which may reach beyond the frame. Where a
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
