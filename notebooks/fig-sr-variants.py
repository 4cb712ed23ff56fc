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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/sparse-gradients-companion/blob/main/notebooks/fig-sr-variants.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/OWNER/sparse-gradients-companion/main?labpath=notebooks%2Ffig-sr-variants.ipynb)

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
# # Which part of SR matters?
# **The penalty has four parts:** whose confidence p it looks at, which penalty it takes of the quotient
# q = (p(x + h·d) - p(x))/h, on which side of the image the probe lies, and how far away, h. The form that the theory
# leads to, |q| of the softmax probability, and the one in the released code differ in the first two.
#
# **You will see** SR with one part changed at a time (and with two), each at its own λ, chosen on validation images:
# the accuracy that PGD and the worst of all attacks leave, the difference to the released form on the same images, and
# whether the change acts on the gradient's magnitude or on its sparsity.
#
# **Time:** 2 minutes on trained networks, 4 from nothing on two cores.

# %% tags=["parameters"]
profile: str = "laptop"  # which file under params/
variants: list[str] = [
    "margin square +",
    "softmax square +",
    "margin absolute +",
    "softmax absolute +",
    "margin square central",
]  # confidence, penalty and direction of each; the first is what the others are compared with
hs: list[float] = [0.1]  # more h for the first; each variant has the profile's own h
square_lambdas: list[float] = [0.01, 0.03]  # weights of q²
absolute_lambdas: list[float] = [0.1, 0.3]  # weights of |q|, on a scale of its own
epochs: int = 3  # of every training here, vanilla too: a study of its own, shorter than the profile's training
network: str = ""  # another network than the profile's
seeds: list[int] = [0]  # one network each
eps_255: float = 32.0  # radius of every attack, in units of 1/255
pgd_steps: int = 20  # steps of PGD, each of length 2.5 ε / steps
long_steps: int = 100  # steps of APGD on each of its two losses
queries: int = 2000  # forward passes of Square, behind APGD
tolerance: float = 0.05  # how much clean accuracy the choice of λ may cost
samples: int = 20  # validation images that choose λ, and as many test images that judge
device: str = "auto"  # auto, cpu, cuda or mps

# %% tags=["asks"]
from IPython.display import Markdown

from paperlib import artifacts, attacks, runs
from paperlib.artifacts import claims
from paperlib.attacks import protocols
from paperlib.measures import predictors
from paperlib.measures import variants as studies
from paperlib.profiles import selections

run = runs.begin("fig-sr-variants", globals())
networks = selections.variants(
    run.profile, variants, hs, square_lambdas, absolute_lambdas, seeds=seeds, epochs=epochs, network=network
)
pgd = attacks.standard("pgd", eps_255 / 255, steps=pgd_steps)
worst = protocols.strongest(eps_255, steps=pgd_steps, long_steps=long_steps, queries=queries)
choosing = run.ask(networks, [None, pgd], samples=samples, split="validation")
judging = run.ask(networks, [None, pgd, worst], samples=samples)

# %% [markdown]
# * **confidence**, p: `margin` is σ(z_y - z_j), the two-class probability against the runner-up j; `softmax` is f_y.
# * **penalty**: `square` is q², `absolute` is |q|.
# * **direction**, with d = sign ∇ₓp: `+` probes at x + h·d, where p grows; `-` at x - h·d; `central` at both.
# * **h** is in units of the pixel range.
#
# The released form is margin, square, +, h = 0.01. λ of different forms are not comparable, so every variant is trained
# with equally many λ and keeps the one that the rule of `fig-lambda` takes: of all λ whose clean accuracy on validation
# images lies at most `tolerance` below that of λ = 0, a vanilla network, the one with the highest accuracy under PGD.
# Where that is λ = 0, none of the variant's networks is compared; the hollow dots of the figure show them.

# %%
validation = choosing.evaluated()

# %%
found, test = judging.evaluated(), run.data.test.take(samples)
gradients = {e.key: predictors.probability_gradients(opened, test) for e, opened in run.opened(networks)}

# %%
record = run.save(studies.variant_rows(validation, found, gradients, tolerance))
artifacts.draw(record)

# %% [markdown]
# Words in bold differ from the first form. **The worst of all** is the share that survives PGD, APGD and Square
# together. Intervals are taken over the images of one network each, unless there are several seeds: they do not say how
# another training would come out. Each interval stands alone: of twenty differences without any effect, about one has
# an interval that excludes 0, by chance.
#
# ## The numbers
# First every variant at its own λ, with the medians of the gradient's l1 norm and participation number; then the
# accuracies on validation images, which chose λ. A λ that is chosen at the end of its row leaves open whether one
# beyond were better.

# %%
Markdown(artifacts.table(record))

# %% [markdown]
# ## What was found

# %%
Markdown(claims.finding(record))
