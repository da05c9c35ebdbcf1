"""Matrix factorization: models with exact answers, MAP, mean field, Gibbs, evidence."""

from symlib.factorization.closed_forms import (
    MatrixFit,
    matrix_map_estimate,
    matrix_mean_field,
    mean_field_posterior,
    mean_field_threshold,
)
from symlib.factorization.coordinate_ascent import (
    map_ascent,
    mean_field_ascent,
)
from symlib.factorization.evidence import (
    log_evidence,
    log_evidence_upper,
)
from symlib.factorization.gibbs import (
    GibbsResult,
    matrix_gibbs,
)
from symlib.factorization.joint import expected_log_joint, matrix_log_joint
from symlib.factorization.ratings import (
    Factors,
    GeneratedRatings,
    Ratings,
    generate_ratings,
    predict,
)
from symlib.factorization.scalar import (
    ScalarExact,
    ScalarPosterior,
    scalar_exact,
    scalar_log_joint,
    scalar_map_estimate,
    scalar_mean_field,
)
from symlib.factorization.scalar_mixture import scalar_symmetrized
from symlib.factorization.variational import (
    VariationalFit,
    fit_matrix,
    fit_matrix_entries,
)

__all__ = [
    "Factors",
    "GeneratedRatings",
    "GibbsResult",
    "MatrixFit",
    "Ratings",
    "ScalarExact",
    "ScalarPosterior",
    "VariationalFit",
    "expected_log_joint",
    "fit_matrix",
    "fit_matrix_entries",
    "generate_ratings",
    "log_evidence",
    "log_evidence_upper",
    "map_ascent",
    "matrix_gibbs",
    "matrix_log_joint",
    "matrix_map_estimate",
    "matrix_mean_field",
    "mean_field_ascent",
    "mean_field_posterior",
    "mean_field_threshold",
    "predict",
    "scalar_exact",
    "scalar_log_joint",
    "scalar_map_estimate",
    "scalar_mean_field",
    "scalar_symmetrized",
]
