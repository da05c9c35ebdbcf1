"""Fixtures shared by all tests, and run-time checks of the annotations in symlib."""

import functools

import jax
import jax.numpy as jnp
import pytest
from hypothesis import HealthCheck, settings
from jax._src import traceback_util
from jaxtyping import install_import_hook

# Has to run before the first import of symlib: from here on each call is checked against its
# shape and type annotations.
install_import_hook("symlib", "beartype.beartype")

# Tests compile much and compute little. XLA reads the variable when it starts, so notebooks and
# programs that tests start run as a reader's.
QUICK_TO_COMPILE = (
    "--xla_backend_optimization_level=0",
    # The older code generator compiles the Hessian of log_hyp0f1 in a third of the time.
    "--xla_cpu_use_fusion_emitters=false",
    # One module instead of several compiled side by side: the cores are busy with other tests.
    "--xla_cpu_parallel_codegen_split_count=1",
)
with pytest.MonkeyPatch.context() as patch:
    for flag in QUICK_TO_COMPILE:
        patch.setenv("XLA_FLAGS", flag, prepend=" ")
    jax.devices()

# Each check that is traced, an equinox.error_if, asks of every file on the stack of calls, of which
# tests have many, whether it is JAX's own: 50 ms. The answers stay the same.
traceback_util.include_filename = functools.cache(traceback_util.include_filename)

# Few, fixed examples: compilation of each new shape is what takes the time. The fixture `dtype`
# is the same for all examples of a test, so sharing it between them does no harm.
settings.register_profile(
    "symlib",
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("symlib")


# The files that take longest, by minutes. A worker that met one of them at the end would work on
# alone. Behind them the order is that of the names, so that the visits of test_site_rest come when
# the book that test_site builds has been there for long.
LONGEST = ("tests/course/test_site.py", "notebooks/exercises")


def pytest_collection_modifyitems(items):
    """Start the longest files first; xdist hands out files in this order."""

    def place(item):
        found = (i for i, name in enumerate(LONGEST) if item.nodeid.startswith(name))
        return next(found, len(LONGEST))

    items.sort(key=place)


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    """Run the test in both precisions; JAX then takes the one named as its default."""
    with jax.enable_x64(request.param == "float64"):
        yield jnp.dtype(request.param)


@pytest.fixture
def x64():
    """Run the test in float64, for comparisons with an oracle."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def tolerance():
    """Return the function dtype -> bound for some hundred roundings, for both rtol and atol.

    A looser bound is written, with its reason, in the test that needs it.
    """
    return lambda dtype: {"float32": 2e-5, "float64": 1e-12}[jnp.dtype(dtype).name]
