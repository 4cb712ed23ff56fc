"""Flags and gradients → the rows of a record, each with its interval: what every notebook measures."""

from paperlib.measures.accuracy import (
    accuracy_rows,
    apart,
    choice_rows,
    chosen,
    contrast_rows,
    difference_rows,
    energy_rows,
    gap_rows,
    mean_rows,
    pass_rows,
    rule_rows,
)
from paperlib.measures.chance import redraw_rows
from paperlib.measures.checklist import Scaled, checklist_rows, scale_control_rows
from paperlib.measures.cost import budget_rows, step_rows
from paperlib.measures.doubts import doubts
from paperlib.measures.events import cut_rows
from paperlib.measures.exact import exact_rows
from paperlib.measures.landscape import Landscape, agreed, landscape_curves, landscape_plane, landscape_rows, landscapes
from paperlib.measures.predictors import predictor_rows, scale_rows, sparsities
from paperlib.measures.quotient import (
    PRECISIONS,
    WINDOW,
    cost_rows,
    curvature_rows,
    curvatures,
    quotient_rows,
    quotients,
    smooth_accuracy_rows,
    weight_gradient_rows,
)
from paperlib.measures.ratio import (
    REGIMES,
    SMOOTH,
    TRUE,
    pictures,
    quantiles,
    ratio_rows,
    saturation,
    vulnerabilities,
    vulnerability_rows,
    worst_rows,
)
from paperlib.measures.settings import setting_labels, setting_rows
from paperlib.measures.sparsity import SPARSITIES, correlation_rows, probability_gradients, sparsity_rows
from paperlib.measures.variants import variant_labels, variant_rows

__all__ = [
    "Landscape",
    "PRECISIONS",
    "REGIMES",
    "SMOOTH",
    "SPARSITIES",
    "Scaled",
    "TRUE",
    "WINDOW",
    "accuracy_rows",
    "agreed",
    "apart",
    "budget_rows",
    "checklist_rows",
    "choice_rows",
    "chosen",
    "contrast_rows",
    "correlation_rows",
    "cost_rows",
    "curvature_rows",
    "curvatures",
    "cut_rows",
    "difference_rows",
    "doubts",
    "energy_rows",
    "exact_rows",
    "gap_rows",
    "landscape_curves",
    "landscape_plane",
    "landscape_rows",
    "landscapes",
    "mean_rows",
    "pass_rows",
    "pictures",
    "predictor_rows",
    "probability_gradients",
    "quantiles",
    "quotient_rows",
    "quotients",
    "ratio_rows",
    "redraw_rows",
    "rule_rows",
    "saturation",
    "scale_control_rows",
    "scale_rows",
    "setting_labels",
    "setting_rows",
    "smooth_accuracy_rows",
    "sparsities",
    "sparsity_rows",
    "step_rows",
    "variant_labels",
    "variant_rows",
    "vulnerabilities",
    "vulnerability_rows",
    "weight_gradient_rows",
    "worst_rows",
]
