"""Attacks and random perturbations: each is a function, and `Attack` names one with its options.

attacks.pgd(network, images, labels, eps=8 / 255, bounds=(0, 1))
"""

from paperlib.attacks.adaptive import apgd, sa_pgd
from paperlib.attacks.attack import ATTACKS, Attack, register, standard
from paperlib.attacks.blackbox import random_search, square
from paperlib.attacks.combined import apgd_square
from paperlib.attacks.flips import random_flips, sparse_flips
from paperlib.attacks.gradient import fgsm, mim, overwritten_eot, pgd, rfgsm
from paperlib.attacks.noise import sign, uniform
from paperlib.attacks.retiming import random_retiming, retiming
