"""Parameter symmetries of probabilistic models and neural networks, in JAX.

Here are the names that most programs need. All others are in the folders, which `import symlib`
brings too: `groups`, `posteriors`, `inference`, `special`, `factorization`, `syre`, `autoencoders`,
and `data`.

Where a docstring says ValueError, a value that is traced raises a RuntimeError when it is run.
"""

import importlib.metadata

from symlib import (
    autoencoders,
    data,
    factorization,
    groups,
    inference,
    posteriors,
    special,
    syre,
)
from symlib.groups import (
    HiddenPermutation,
    Orthogonal,
    Permutation,
    Product,
    SignFlip,
    invariance_error,
)
from symlib.inference import elbo, fit
from symlib.posteriors import DiagonalGaussian, IsotropicGaussian, Symmetrized
from symlib.syre import anchored_decay

try:
    __version__ = importlib.metadata.version("model-symmetries")
except importlib.metadata.PackageNotFoundError:  # a copy on the path that is not installed
    __version__ = "0+unknown"

__all__ = [
    "DiagonalGaussian",
    "HiddenPermutation",
    "IsotropicGaussian",
    "Orthogonal",
    "Permutation",
    "Product",
    "SignFlip",
    "Symmetrized",
    "anchored_decay",
    "autoencoders",
    "data",
    "elbo",
    "factorization",
    "fit",
    "groups",
    "inference",
    "invariance_error",
    "posteriors",
    "special",
    "syre",
]
