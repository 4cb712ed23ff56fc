"""Certificates: proofs that no perturbation within a radius changes the decision of a network."""

from paperlib.certificates.certificate import Certificate, certify, margins
from paperlib.certificates.geometry import still_radius
