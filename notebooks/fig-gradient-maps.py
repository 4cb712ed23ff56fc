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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/sparse-gradients-companion/blob/main/notebooks/fig-gradient-maps.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/OWNER/sparse-gradients-companion/main?labpath=notebooks%2Ffig-gradient-maps.ipynb)

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
# # What do the input gradients look like, and does their sparsity matter?
# **The paper says** (C5) that the sparsity of ∇ₓ f_y, the gradient of the true class's probability by the image, is
# what makes a network robust.
#
# **You will see** that gradient of the same images under the four trainings; the correlation of its sparsity with
# robustness across networks, within trainings and at a given magnitude; and an experiment in which two trainings give
# gradients of equal magnitude and different sparsity.
#
# **Time:** 3 minutes on trained networks.

# %% tags=["parameters"]
profile: str = "laptop"  # which file under params/
images: int = 4  # how many images are shown, the first of the test set
eps_255: float = 32.0  # radius of the attacks, in units of 1/255
pgd_steps: int = 20  # steps of PGD, each of length 2.5 ε / steps
samples: int = 1000  # test images measured and attacked by PGD; as many validation images match the magnitudes
strong_samples: int = 50  # of these, test images that the strongest attack is made on
long_steps: int = 100  # its steps of APGD
queries: int = 2000  # its forward passes of Square, behind APGD
matched: dict = {"sr": [0.03], "l2": [10]}  # two trainings, with weights tried for equal magnitude
matched_seeds: list[int] = [0, 1, 2]  # a network each
device: str = "auto"  # auto, cpu, cuda or mps

# %% tags=["asks"]
from IPython.display import Markdown

from paperlib import artifacts, attacks, records, runs
from paperlib.artifacts import claims
from paperlib.attacks import protocols
from paperlib.measures import accuracy, predictors
from paperlib.profiles import selections

run = runs.begin("fig-gradient-maps", globals())
observed = selections.swept(run.profile)
trained = selections.matched(run.profile, matched, matched_seeds)
networks = selections.once(observed + trained)
pgd = attacks.standard("pgd", eps_255 / 255, steps=pgd_steps)
strongest = protocols.strongest(eps_255, steps=pgd_steps, long_steps=long_steps, queries=queries)
weak, strong = run.ask(networks, [pgd], samples=samples), run.ask(networks, [strongest], samples=strong_samples)
clean = run.ask(trained, [None], samples=samples)

# %% [markdown]
# Three sizes of a gradient g. ‖g‖₁ is what SR regularises; it shrinks when the network merely becomes less steep.
# The **participation number** ‖g‖₁²/‖g‖₂² says on how many pixels the gradient is spread: it is n where n pixels have
# the same magnitude and the others none. It does not depend on the gradient's scale, lies between 1 and ‖g‖₀, and three
# times it is the theorem's ratio. ‖g‖₀ itself counts exact zeros and is close
# to the number of pixels in floating point, whatever the network.

# %%
test = run.data.test.take(samples)
gradients = {e.key: predictors.probability_gradients(network, test) for e, network in run.opened(networks)}
sparsity = [row for e in networks for row in predictors.sparsity_rows(e, gradients[e.key])]
shown = {training: run.profile.experiments(training)[0] for training in run.profile.trainings}
arrays = {
    "images": records.array(test.pixels(slice(images))),
    "maps": {training: records.array(gradients[e.key][:images]) for training, e in shown.items()},
}
artifacts.draw(run.record(sparsity, arrays), "maps")

# %% [markdown]
# ## Does sparsity go with robustness?
# **Across networks** it is easy to find that it does, and easy to be misled. If adversarial training makes networks
# robust and their gradients sparse, then sparsity and robustness go together across trainings although neither need do
# anything to the other. Within each training the relation may vanish or turn round: Simpson's paradox. So there are
# three questions, and the claim is supported only if all three agree:
#
# 1. across all networks: the rank correlation of participation number and accuracy under the strongest attack;
# 2. **within trainings**: the same with ranks taken inside each training (and, beside it, within SR over λ);
# 3. **at a given magnitude**: the partial rank correlation with ‖g‖₁ held. To first order an attack within ε costs f_y
#    just ε‖g‖₁. So by the paper's own linear theory the participation number has nothing left to say once ‖g‖₁ is
#    known; it compares attacks with random noise.
#
# Networks that differ by their seed alone are alike, so the intervals resample whole configurations (a training with
# its λ). The configurations are few, which such intervals bear badly: a simulation set their form (see
# `statistics.clustered_rank_correlation`). The accuracies are of few images, which makes correlations smaller.
#
# There is a **counter-hypothesis**: *concentrated* gradients, those of a small participation number, go with
# catastrophic overfitting, where a network withstands one-step attacks and fails under longer ones (Mehouachi and
# Jabari, arXiv 2505.02360). If that acted here, the sparsest networks would lose most between PGD and the strongest
# attack.
#
# ## What if the magnitude is set equal?
# No correlation over networks that happened to be trained says what causes what. So here two trainings are compared
# whose penalties have different norms: SR's, an l1 norm, which favours sparse gradients, and λ·‖∇f_y‖₂, which does not.
# Of the weights that were tried, those two are compared at which ‖g‖₁ is most nearly equal on validation images. What
# remains between them is the participation number, and whatever else the two penalties change: ‖g‖₁ is that of a
# probability, which is flat where a network is sure of its class, so equal medians do not mean that the logits are
# equally steep.

# %%
validation = run.data.validation.take(min(samples, len(run.data.validation)))
on_validation = {e.key: predictors.probability_gradients(network, validation) for e, network in run.opened(trained)}

# %%
first = weak.evaluated()
found = first + accuracy.in_two_phases(strong.evaluated(), first)
keys = {e.key for e in observed}
correlations = predictors.correlation_rows(sparsity, [e for e in found if e.experiment.key in keys])
contrast = predictors.matched_rows(on_validation, sparsity, clean.evaluated() + found, [*matched])
record = run.save(sparsity + correlations + contrast + accuracy.accuracy_rows(found), arrays)
artifacts.draw(record)

# %% [markdown]
# Above, a small dot is a network, a large one the mean of a configuration; a line joins SR from the smallest λ to the
# largest. Hollow dots are the networks trained for equal magnitude, which no correlation counts.
#
# ## The numbers

# %%
Markdown(artifacts.table(record))

# %% [markdown]
# ## What was found

# %%
Markdown(claims.finding(record))
