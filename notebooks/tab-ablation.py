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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/sparse-gradients-companion/blob/main/notebooks/tab-ablation.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/OWNER/sparse-gradients-companion/main?labpath=notebooks%2Ftab-ablation.ipynb)

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
# # Does regularising gradient sparsity make networks robust?
# **The paper says** (C3) that SR trains networks that are more robust than vanilla ones, alone and on top of
# adversarial training.
#
# **You will see** eleven trainings: vanilla, AT and TRADES, each without and with SR; RAT; and SR's rivals, exact
# penalties of the gradient's l1 and l2 norm and the older penalty of the *loss* gradient. First at equal epochs, on
# clean images, under noise, FGSM and PGD. Then at equal cost: a step of SR goes through the network five times where a
# vanilla step needs two, so the cheaper trainings have more epochs.
#
# **Time:** 7 minutes on trained networks, 15 from nothing on two cores.

# %% tags=["parameters"]
profile: str = "laptop"  # which file under params/
eps_255: list[float] = [16.0, 32.0, 48.0]  # radii, in units of 1/255
pgd_steps: int = 20  # steps of PGD, each of length 2.5 ε / steps
samples: int = 1000  # test images
rival_seeds: int = 3  # of each rival the first so many networks; of a training all
strong_eps_255: float = 32.0  # radius of the strongest attack, in units of 1/255
strong_samples: int = 50  # test images that it is made on
long_steps: int = 100  # its steps of APGD on each of its two losses
queries: int = 2000  # its forward passes of Square, behind APGD
passes: int = 0  # forward and backward passes per training image at equal cost: AT's and exact l1's in 5 epochs
cost_seeds: int = 3  # networks of each training and rival that it is made on, at equal epochs and at equal cost
device: str = "auto"  # auto, cpu, cuda or mps

# %% tags=["asks"]
from IPython.display import Markdown

from paperlib import artifacts, labels, runs
from paperlib.artifacts import claims
from paperlib.attacks import protocols
from paperlib.measures import accuracy, cost, learning
from paperlib.profiles import selections

run = runs.begin("tab-ablation", globals())
ladder = protocols.ladder(eps_255, steps=pgd_steps)
networks = selections.contest(run.profile, rival_seeds)
everyone = run.ask(networks, ladder, samples=samples)
budgets = {
    labels.EPOCHS: selections.at_epochs(run.profile, cost_seeds),
    labels.PASSES: selections.at_cost(run.profile, passes, cost_seeds),
}
strongest = protocols.strongest(strong_eps_255, steps=pgd_steps, long_steps=long_steps, queries=queries)
first = {budget: run.ask(some, [None, strongest.members[0]], samples=samples) for budget, some in budgets.items()}
strong = {budget: run.ask(some, [strongest], samples=strong_samples) for budget, some in budgets.items()}

# %% [markdown]
# * **SR** adds to the cross-entropy λ·mean ((p(x + h·d) - p(x))/h)², p the two-class probability of the true class
#   against its runner-up and d = sign ∇ₓp: a second pass in place of double back-propagation.
# * **Loss l1** has the cross-entropy in p's place (Finlay and Oberman, arXiv 1905.11468).
# * **Exact l1** and **exact l2** add λ·mean ‖∇ₓ f_y‖ by double back-propagation, f_y the softmax probability of the
#   true class. The l1 norm is what SR estimates; the l2 norm does not ask for sparsity.
# * **AT** takes adversarial examples of one step in place of the images; AT+SR takes SR's penalty there. **AT of PGD**
#   takes examples of seven steps: what SR adds to AT of one step may only make up for weak examples.
# * **RAT** is AT whose weight matrices are drawn towards orthogonal rows after each step.
# * **TRADES** adds to the cross-entropy on clean images β·KL between what is predicted there and on adversarial
#   examples (arXiv 1901.08573); TRADES+SR takes SR's penalty on the clean images.
#
# Architecture, data, batch and learning rate are the same for all; λ and β stand in the profile's file.
#
# ## At equal epochs

# %%
found = everyone.evaluated()

# %%
pairs = [("sr", "vanilla"), ("at+sr", "at"), ("trades+sr", "trades")]
pairs += [("at-pgd", "at"), ("at+sr", "at-pgd")]
pairs += [("sr", rival) for rival in ("l2", "loss-l1", "exact-l1", "at")]
rows = accuracy.mean_rows(found)
rows += [row for pair in pairs for row in accuracy.difference_rows(found, *pair)]
rows += accuracy.accuracy_rows(found)
artifacts.draw(run.record(rows))

# %% [markdown]
# Left, each training on clean images (hollow) and under PGD at one radius (full); the other radii stand in the table.
# Right, what SR adds to a training, and SR against its rivals. The paper's four trainings have colours, the rivals
# are grey. Differences are paired by seed and image; their intervals are over both. Where two trainings have one seed
# in common, the interval is over images alone and decides nothing, for it says nothing of other seeds.
#
# ## At equal cost
# Forward and backward passes count alike, although those of double back-propagation are slower (`tab-cost`). Each
# training is given the number of epochs that comes closest to `passes` passes per image, one at least, and the learning
# rate falls over these epochs. The attack is the strongest one of `fig-attack-ladder`: PGD, then APGD, then Square from
# where APGD ended, which needs no gradient. PGD alone flatters networks whose gradients mislead, SR's among them
# (`tab-masking-checklist`).

# %%
weak = {budget: request.evaluated() for budget, request in first.items()}
both = {budget: weak[budget] + accuracy.in_two_phases(strong[budget].evaluated(), weak[budget]) for budget in budgets}
record = run.save(rows + cost.budget_rows(both) + learning.rows(networks))
artifacts.draw(record, "equal-cost")

# %% [markdown]
# The best of eleven trainings is chosen after looking at the numbers; this choice alone favours it a little.
#
# ## Epoch by epoch
# Are the networks trained until they stop gaining? The learning rate falls to 0 in the last epoch, so a curve that is
# flat at its end may rise again with a longer schedule. Everywhere the network of the last epoch is shown: to choose an
# epoch by its robustness would take attacks on validation images after each.

# %%
artifacts.draw(record, "learning")

# %% [markdown]
# ## The tables
# First the mean accuracy with its 95 % interval over seeds and images (for a rival's single network over its images),
# then the differences, clean and under PGD; the same under noise and FGSM; and both budgets.

# %%
Markdown(artifacts.tables(record))

# %% [markdown]
# ## What was found

# %%
Markdown(claims.finding(record))
