"""The notebooks in the order in which they are to be read, in chapters, each with a line that says what it shows.

README's list, the report and the site take their order from here.
"""

from collections.abc import Iterable

CHAPTERS = {
    "Begin": {
        "start-here": "The idea in a few cells: what a spiking network is, how it is attacked, and what SR changes.",
    },
    "Noise, attacks and SR": {
        "fig-random-vs-adversarial": "Accuracy under PGD against accuracy under noise that is up to four times larger.",
        "tab-ablation": "Eleven trainings side by side, at equal epochs and at equal cost: what SR adds to each.",
        "tab-cost": "Time, memory and passes of each training, and the robustness that they buy.",
    },
    "Stronger attacks": {
        "fig-attack-ladder": "The worst case of ever more attacks, rung by rung; its last rung decides claim C3.",
        "fig-certified": "The share of images that is proved robust, below what attacks leave; what SR changes of it.",
        "tab-masking-checklist": "The published signs of a masked gradient, checked one by one.",
        "tab-whitebox": "FGSM, RFGSM and PGD, each alone and as the worst case of four backward rules.",
        "tab-blackbox": "Examples made on other networks, and an attack that sees nothing but outputs.",
    },
    "Why it should work": {
        "fig-gradient-maps": "Input gradients as pictures, and whether the sparser ones belong to the robust networks.",
        "fig-spikes": "What the spikes do: rasters, membranes, rates and energy, and which spikes an attack moves.",
        "thm-ratio": "The proof line by line, then the ratio measured on networks, where its bounds fail and why.",
        "prop-finite-difference": "The identity that SR rests on, over steps, schemes and precisions.",
    },
    "What it depends on": {
        "fig-lambda": "The trade-off between clean and robust accuracy, and the weight that validation data choose.",
        "fig-sr-variants": "Confidence, penalty, direction and step of SR exchanged one at a time.",
        "fig-timesteps-and-leak": "SR's gain at other numbers of time steps, with a leak, another reset, and an ANN.",
        "fig-landscape": "The loss around test images, along the attack's direction and across it.",
        "fig-surrogate-width": "Attacks by surrogate gradients of other widths than the one in training.",
        "tab-poisson-eot": "Networks with random input, attacked with and without an expectation over their draws.",
    },
    "Event data": {
        "tab-events": "The comparison of trainings on recordings of a simulated event camera.",
        "fig-random-vs-adversarial-events": "Noise against attacks there, in counts and in whole events.",
        "fig-spikes-events": "What the spikes do on a recording, and which of them an attack moves.",
    },
    "Your own": {
        "your-network": "The attacks of this companion on any network, here on a plain snnTorch one.",
    },
}
LINES = {name: line for chapter in CHAPTERS.values() for name, line in chapter.items()}


def order(names: Iterable[str]) -> list[str]:
    """These notebooks in reading order; those that no chapter has come last, sorted."""
    names = set(names)
    return [name for name in LINES if name in names] + sorted(names - set(LINES))
