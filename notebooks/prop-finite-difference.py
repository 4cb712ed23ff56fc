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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/sparse-gradients-companion/blob/main/notebooks/prop-finite-difference.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/OWNER/sparse-gradients-companion/main?labpath=notebooks%2Fprop-finite-difference.ipynb)

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
# # The finite-difference proposition: ‖∇f_y‖₁ from two forward passes
# **The paper uses** ‖g‖₁ = dᵀg ≈ (f_y(x + h·d) - f_y(x))/h with d = sign g, so that training needs no double
# back-propagation.
#
# **You will see**, over h, how well that quotient of the *spiking* network follows the l1 norm of its *surrogate*
# gradient (the two come from different functions, so nothing forces them to agree), what its error is made of, and
# whether the penalty it gives points the weights in the same direction as the exact one.
#
# **Time:** half a minute on trained networks.

# %% tags=["parameters"]
profile: str = "laptop"  # which file under params/
seeds: int = 3  # how many networks of each training
steps: list[float] = [1e-06, 1e-05, 0.0001, 0.001, 0.003, 0.01, 0.03, 0.1]  # values of h, in units of the image's range
samples: int = 60  # test images for the spiking network
smooth_samples: int = 30  # and for the surrogate-smooth one, which is slower
weight_samples: int = 30  # and for the penalty's gradient by the weights
accuracy_samples: int = 500  # and for the accuracies of both
device: str = "auto"  # auto, cpu, cuda or mps

# %% tags=["asks"]
from IPython.display import Markdown

from paperlib import artifacts, labels, runs
from paperlib.artifacts import claims
from paperlib.measures import quotient
from paperlib.profiles import selections

run = runs.begin("prop-finite-difference", globals())
used_h = run.profile.trainings["sr"]["h"]
networks = selections.first(run.profile, seeds)
trained = run.ask(networks)

# %% [markdown]
# ## Does the quotient follow ‖g‖₁?
# For a smooth f the quotient errs by (h/2)·dᵀ∇²f d. A spiking network with direct encoding is piecewise constant: for
# tiny h most images do not change a single spike, the quotient is 0 for these and huge for the few that cross a
# threshold. Between that and curvature there may be a window in which it is a proxy (shaded).

# %%
opened, test = list(run.opened(networks)), run.data.test
shown = {labels.SMOOTH: test.take(smooth_samples), labels.TRUE: test.take(samples)}
found = [
    quotient.quotients(one, shown[regime], sorted({*steps, used_h}), regime=regime, precision=precision)
    for regime in shown
    for precision in quotient.PRECISIONS
    for one in opened
]
rows = quotient.quotient_rows(found, used=used_h)
arrays = {"used_h": used_h, "window": quotient.WINDOW}
artifacts.draw(run.record(rows, arrays))

# %% [markdown]
# Network by network, the values of h that are a proxy, and where SR's own lies:

# %%
artifacts.draw(run.record(rows, arrays), "window")

# %% [markdown]
# ## Forward, backward, central; 64 bits and 32
# On the *surrogate-smooth* network (the same weights, each spike replaced by the integral of its surrogate, the reset
# kept) the textbook holds: errors of order h and h², until rounding takes over. On the spiking network there is no such
# curve, and no precision brings it back: the steps are in the function, not in the arithmetic.

# %%
artifacts.draw(run.record(rows, arrays), "schemes")

# %% [markdown]
# ## The curvature term
# The smooth networks are other functions than the spiking ones; their accuracies, side by side, stand in the table
# below. On them dᵀ∇²f d is there by double back-propagation, and (h/2)·dᵀ∇²f d should be the error.

# %%
smooth = quotient.curvature_rows(found) + quotient.smooth_accuracy_rows(opened, test.take(accuracy_samples))
arrays |= {"curvature": quotient.curvatures(found, used_h)}
artifacts.draw(run.record(rows + smooth, arrays), "curvature")

# %% [markdown]
# ## The gradient that training would follow
# What matters in the end is the penalty's gradient by the *weights*: that of the mean |q|, as the quotient gives it,
# and that of the mean ‖∇f_y‖₁ by double back-propagation through the surrogates. Cost is counted in multiply-adds and
# in bytes kept for the backward pass, relative to a step on cross-entropy alone.

# %%
subset = test.take(weight_samples)
weights = quotient.weight_gradient_rows(opened, subset, h=used_h)
weights += quotient.cost_rows(opened[0], subset, h=used_h)
artifacts.draw(run.record(weights, arrays), "weights")

# %% [markdown]
# ## The numbers

# %%
record = run.save(rows + smooth + weights, arrays)
Markdown(artifacts.tables(record))

# %% [markdown]
# ## What was found

# %%
Markdown(claims.finding(record))
