"""The checklist, SR's variants and the settings of neurons: rows by hand, choices of λ, gains against a slow count."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from by_hand import at, evaluation, experiment, flags, images, only, opened, select

from paperlib import labels, profiles
from paperlib.attacks import evaluation as attacked
from paperlib.attacks import protocols
from paperlib.attacks.attack import Attack
from paperlib.errors import Refused
from paperlib.measures.checklist import Scaled, checklist_rows, scale_control_rows
from paperlib.measures.settings import setting_labels, setting_rows
from paperlib.measures.variants import variant_labels, variant_rows
from paperlib.training import regularizers

N = 100
PGD, WORST = at("pgd", 16), protocols.strongest(16, steps=20, long_steps=20, queries=30)
ATTACKS = [None, PGD, WORST]


def evaluations(networks, attacks):
    """`networks`: pairs of an experiment and what each of `attacks` leaves of its N samples."""
    return [
        evaluation(e, attack, right, N) for e, left in networks for attack, right in zip(attacks, left, strict=False)
    ]


# ---- the checklist -------------------------------------------------------------------------------------------------

SOURCE = experiment()


def listed(source=SOURCE):
    return protocols.checklist(32.0, [16.0, 32.0, 48.0], steps=10, long_steps=50, queries=30, source=source)


LIST = listed()
SOUND = {LIST.gradient: 40, LIST.longer: 38, LIST.one_step: 60, LIST.square: 50, LIST.random: 90}
SOUND |= {LIST.unbounded: 0, LIST.radii[0]: 70, LIST.radii[2]: 10}
