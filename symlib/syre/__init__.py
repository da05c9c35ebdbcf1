"""Removing symmetries: the biased loss, anchored decay, other methods, and measures of collapse."""

from symlib.syre.anchor import (
    RELATIVE_SIGMA0,
    default_sigma0,
    draw_anchor,
)
from symlib.syre.baselines import (
    drop_weights,
    fix_weights,
)
from symlib.syre.collapse import (
    covariance_spectrum,
    dead_units,
    degree_of_symmetry,
    effective_rank,
    symmetry_breaking_strength,
    thresholded_rank,
)
from symlib.syre.decay import (
    AnchoredDecayState,
    anchored_decay,
    decay_to_initial,
)
from symlib.syre.hashing import (
    hashed_uniform,
)
from symlib.syre.loss import (
    deployed,
    remove_symmetry,
)

__all__ = [
    "AnchoredDecayState",
    "RELATIVE_SIGMA0",
    "anchored_decay",
    "covariance_spectrum",
    "dead_units",
    "decay_to_initial",
    "default_sigma0",
    "degree_of_symmetry",
    "deployed",
    "draw_anchor",
    "drop_weights",
    "effective_rank",
    "fix_weights",
    "hashed_uniform",
    "remove_symmetry",
    "symmetry_breaking_strength",
    "thresholded_rank",
]
