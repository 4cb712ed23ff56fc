"""Certificates: proofs that no perturbation within a radius changes the decision of a network.

What the single spike trains (see `spiking`) add to interval bounds, in percent of the first 100 test images of
`laptop` that are certified, mean of three networks, before → after, on an AMD EPYC:

========  ===========  ===========  ===========  ===========  ===========
training  2/255        4/255        8/255        16/255       32/255
========  ===========  ===========  ===========  ===========  ===========
vanilla   41.3 → 58.3  14.3 → 22.7  0.7 → 1.7    0 → 0        0 → 0
SR        94.0 → 94.0  93.0 → 94.0  83.0 → 85.0  63.7 → 67.3  16.0 → 18.7
AT        95.7 → 95.7  95.3 → 95.3  84.0 → 85.7  57.7 → 60.3  2.3 → 3.0
AT+SR     96.0 → 96.0  95.0 → 95.0  87.3 → 88.7  67.7 → 69.3  22.0 → 23.0
========  ===========  ===========  ===========  ===========  ===========

Of the gap below the worst case of all attacks (`fig-attack-ladder`) at 16/255 they close 14 % for SR and 7 % for AT and
AT+SR, at 32/255 4, 1 and 2 %; the upper end is that figure's estimate over more images.  Intervals take 3 ms of
processor time an image, spike trains 4 to 8 ms more for each image that intervals leave open (30 images, one network of
each training).

Two other ways were tried and not kept.  **Affine bounds** of the first layer's staircases as functions of the pixels:
currents of the second layer narrow by 0.5 % or less for SR and by at most 2.6 % for AT and AT+SR (8 images, one network
of each), for a staircase over the whole ball is far from a line.  With slopes optimised backwards from the margin, at
0.2 s for each open image, they certify 3 of 40 images more for SR at 32/255, one more in each of four other cases, and
none elsewhere.  **Branching** was not built: 60 to 500 neurons of the first layer are undecided for an image that is
open, so cases would multiply long before the margin is decided.
"""

from paperlib.certificates.certificate import Certificate, certify, margins
from paperlib.certificates.geometry import still_radius
