"""The laws of a group and of its action, run over a registry of groups."""

import inspect
import math
from collections import Counter
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from scipy import linalg, stats
from scipy.special import logsumexp

from symlib.groups import (
    FiniteGroup,
    Group,
    HiddenPermutation,
    Orthogonal,
    Permutation,
    Product,
    Reflection,
    Scaling,
    SignFlip,
    Translation,
    invariance_error,
)
from symlib.posteriors import DiagonalGaussian, IsotropicGaussian, Symmetrized, sampled_log_ratio


class Case(NamedTuple):
    """A group, and the shapes of a point it acts on."""

    group: Group
    shapes: object
    order: float = math.inf
    compact: bool = True


CASES = {
    "sign of a pytree": Case(SignFlip(5), {"w": (2,), "b": (3, 1)}, 2),
    "reflection": Case(Reflection.swap(4, [0], [2]), (4,), 2),
    "permutation of one": Case(Permutation(1), (1, 2), 1),
    "permutation": Case(Permutation(4), {"incoming": (4, 2), "outgoing": (4,)}, 24),
    "O(1)": Case(Orthogonal(1), (3, 1)),
    "O(2)": Case(Orthogonal(2), [(4, 2), (2,)]),
    "O(3)": Case(Orthogonal(3), [(4, 3), (2, 2, 3)]),
    "scaling": Case(Scaling(), [(2, 3), (4,)], compact=False),
    "translation": Case(Translation(3), (3,), compact=False),
    "independent signs": Case(Product(*[SignFlip(1)] * 3), (3,), 8),
    "finite product": Case(Product(Permutation(3), SignFlip(2)), [(3, 2), (2,)], 12),
    "infinite product": Case(Product(SignFlip(1), Orthogonal(2)), [(), (3, 2)]),
    "nested product": Case(
        Product(Product(SignFlip(2), SignFlip(1)), Permutation(2)), [[(2,), (1,)], (2, 3)], 8
    ),
    "hidden units": Case(HiddenPermutation(3), [[(3, 2), (3,)], [(1, 3), (1,)]], 6),
    "two hidden layers": Case(HiddenPermutation(2, 3), [(2, 2), (3, 2), (1, 3)], 12),
    "non-compact product": Case(
        Product(Scaling(), Translation(2)), [[(), ()], (2,)], compact=False
    ),
}
FINITE = [name for name, case in CASES.items() if math.isfinite(case.order)]
COMPACT = [name for name, case in CASES.items() if case.compact]


def is_shape(node):
    return isinstance(node, tuple)


def make_point(shapes, dtype, seed=0):
    draws = np.random.default_rng(seed)
    return jax.tree.map(
        lambda s: jnp.asarray(draws.normal(size=s), dtype), shapes, is_leaf=is_shape
    )


def draw(group, draws, scale):
    """Draw an element with NumPy and SciPy; it is near the identity if `scale` is small."""
    if isinstance(group, Product):
        return tuple(draw(factor, draws, scale) for factor in group.groups)
    if isinstance(group, SignFlip | Reflection):
        return np.where(draws.uniform() < scale / 2, -1.0, 1.0)
    if isinstance(group, Permutation):
        return draws.permutation(group.n) if scale == 1 else np.arange(group.n)
    if isinstance(group, Scaling):
        return np.exp(scale * draws.normal())
    if isinstance(group, Translation):
        return scale * draws.normal(size=group.dim)
    if scale == 1:
        return np.linalg.qr(draws.normal(size=(group.k, group.k)))[0]
    noise = scale * draws.normal(size=(group.k, group.k))
    return linalg.expm(noise - noise.T)


def some_elements(group):
    """Return the identity, an element near it and three more, stacked."""
    draws = np.random.default_rng(1)
    elements = [draw(group, draws, scale) for scale in (1e-4, 1, 1, 1)]
    return jax.tree.map(lambda *g: jnp.asarray(np.stack(g)), group.identity(), *elements)


def over_all(function, *arguments):
    """Return `function` of every combination of entries of the stacked arguments, under jit."""
    for place in range(len(arguments)):
        axes = [None] * len(arguments)
        axes[place] = 0
        function = jax.vmap(function, in_axes=tuple(axes))
    return jax.jit(function)(*arguments)


def assert_close(actual, expected, bound):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=bound, atol=bound)


def rows(elements, count):
    """Return stacked elements as a list of tuples of numbers."""
    leaves = [np.reshape(leaf, (count, -1)) for leaf in jax.tree.leaves(elements)]
    return list(map(tuple, np.concatenate(leaves, 1).tolist()))


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


# ---- The laws ----


def test_laws(case, dtype, tolerance):
    group = case.group
    z = make_point(case.shapes, dtype)
    elements = some_elements(group)
    compose, inverse, act = group.compose, group.inverse, group.act

    def laws(g, h, k):
        e = group.identity()
        return {
            "identity": ([compose(e, g), compose(g, e)], [g, g]),
            "inverse": ([compose(inverse(g), g), compose(g, inverse(g))], [e, e]),
            "associativity": (compose(compose(g, h), k), compose(g, compose(h, k))),
            "action of the identity": (act(e, z), z),
            "action of the inverse": (act(inverse(g), act(g, z)), z),
            "action of a product": (act(compose(g, h), z), act(g, act(h, z))),
        }

    for name, (left, right) in over_all(laws, elements, elements, elements).items():
        # The message of a failure begins with the name of the law.
        assert_close({name: left}, {name: right}, tolerance(dtype))


def test_volume_is_kept_by_compact_groups(case):
    group = case.group
    flat, unflatten = ravel_pytree(make_point(case.shapes, jnp.float32))

    def jacobian(g):
        return jax.jacobian(lambda x: ravel_pytree(group.act(g, unflatten(x)))[0])(flat)

    jacobians = over_all(jacobian, some_elements(group))
    determinants = np.abs(np.linalg.det(jacobians))
    if case.compact:
        # The factor |det T^-1| of Moore (2016, eq. 3) is 1.
        np.testing.assert_allclose(determinants, 1, rtol=1e-5)
    else:
        assert np.all(determinants > 0)


def test_dtypes(case, dtype):
    group, key = case.group, jax.random.key(0)
    fresh = [group.identity()]
    if case.compact:
        fresh += [jax.eval_shape(group.sample, key)]
    kinds = {leaf.dtype for leaf in jax.tree.leaves(fresh)}
    assert all(found == dtype for found in kinds if found.kind == "f")
    # The point decides the dtype of the result, whatever that of the element.
    z = make_point(case.shapes, jnp.float32)
    moved = jax.eval_shape(group.act, group.identity(), z)
    assert {leaf.dtype for leaf in jax.tree.leaves(moved)} == {jnp.dtype("float32")}


def test_group_has_no_leaves(case):
    if isinstance(
        case.group, Reflection
    ):  # its mirror has no gradient: test_a_reflection_is_a_group
        return
    assert jax.tree.leaves(case.group) == []
    assert jax.tree.unflatten(jax.tree.structure(case.group), []) == case.group


def test_order(case):
    assert case.group.order == case.order


@pytest.mark.parametrize("name", FINITE)
def test_elements_are_the_group_and_sample_is_uniform(name):
    group, order = CASES[name].group, CASES[name].order
    elements = group.elements()
    table = rows(elements, order)
    assert len(set(table)) == order
    assert table[0] == rows(group.identity(), 1)[0]
    products = over_all(group.compose, elements, elements)
    assert set(rows(products, order**2)) == set(table)
    assert set(rows(jax.vmap(group.inverse)(elements), order)) == set(table)

    draws = jax.jit(jax.vmap(group.sample))(jax.random.split(jax.random.key(3), 500 * order))
    counts = Counter(rows(draws, 500 * order))
    assert set(counts) == set(table)
    surprise = sum((count - 500) ** 2 / 500 for count in counts.values())
    assert surprise <= stats.chi2.ppf(0.999, order - 1) or order == 1


# ---- What each group does ----


@settings(max_examples=4)
@given(n=st.integers(1, 6), trailing=st.lists(st.integers(1, 3), max_size=2))
def test_permutation_moves_entry_i_to_place_g_i(n, trailing):
    z = make_point((n, *trailing), jnp.float32)
    g = np.random.default_rng(n).permutation(n)
    moved = jax.jit(Permutation(n).act)(g, z)
    for i in range(n):
        np.testing.assert_array_equal(np.asarray(moved)[g[i]], z[i])


@settings(max_examples=4)
@given(k=st.integers(1, 5), n=st.integers(1, 4), seed=st.integers(0, 99))
def test_orthogonal_keeps_the_product_of_factors(k, n, seed, dtype, tolerance):
    group, bound = Orthogonal(k), tolerance(dtype)
    U, V = z = make_point([(n, k), (3, k)], dtype, seed)
    T = jax.jit(group.sample)(jax.random.key(seed))
    U_moved, V_moved = map(np.asarray, jax.jit(group.act)(T, z))
    # Row i of U T^T is T applied to row i of U.
    np.testing.assert_allclose(U_moved[-1], np.asarray(T) @ U[-1], rtol=bound, atol=bound)
    expected = np.asarray(U) @ np.asarray(V).T
    np.testing.assert_allclose(U_moved @ V_moved.T, expected, rtol=bound, atol=bound)


def test_sign_flip_negates_everything(dtype):
    z = make_point({"w": (2,), "b": (3, 1)}, dtype)
    assert_close(SignFlip(5).act(-1, z), jax.tree.map(lambda leaf: -leaf, z), 0)


def test_scaling_keeps_the_product(dtype, tolerance):
    u, v = make_point([(), ()], dtype)
    a_u, v_over_a = Scaling().act(2.5, (u, v))
    np.testing.assert_allclose(a_u, 2.5 * u, rtol=tolerance(dtype))
    np.testing.assert_allclose(a_u * v_over_a, u * v, rtol=tolerance(dtype))


def test_translation_adds(dtype):
    z, t = make_point([(3,), (3,)], dtype)
    assert_close(Translation(3).act(t, z), z + t, 0)


def test_product_acts_part_by_part(dtype):
    signs = Product(*[SignFlip(1)] * 3)
    z = jnp.array([1.0, 2.0, 3.0], dtype)
    flipped = signs.act((1.0, -1.0, -1.0), z)
    assert_close(flipped, jnp.array([1.0, -2.0, -3.0], dtype), 0)
    # A list stays a list, a named tuple stays one.
    kept = signs.act((1, -1, -1), list(z))
    assert isinstance(kept, list)

    class Layers(NamedTuple):
        first: jax.Array
        second: jax.Array

    layers = Product(SignFlip(2), Permutation(2)).act((-1, [1, 0]), Layers(z[:2], z[1:]))
    assert_close(layers, Layers(jnp.array([-1.0, -2.0], dtype), jnp.array([3.0, 2.0], dtype)), 0)


# ---- What a user overrides ----


class FirstSign(SignFlip):
    """A sign of the first entry alone."""

    def act(self, g, z):
        return z.at[0].multiply(g)


class Short(SignFlip):
    """A sign flip that lists less than its order says."""

    def elements(self):
        return jnp.ones(1)


def test_the_library_calls_what_a_subclass_overrides():
    z = jnp.array([1.0, 2.0])
    both = Product(FirstSign(2), SignFlip(1)).act((-1.0, -1.0), (z, jnp.ones(1)))
    assert_close(both, (jnp.array([-1.0, 2.0]), -jnp.ones(1)), 0)
    with pytest.raises(ValueError, match=r"order is 2, but elements\(\) gives 1"):
        Product(Short(1), SignFlip(1)).elements()


class Shifts(FiniteGroup):
    """The cyclic shifts of a vector: a group of one's own in ten lines."""

    n: int
    k: float = 0.5  # a field of any kind

    def elements(self):
        return jnp.arange(self.n)

    def act(self, g, z):
        return jnp.roll(z, g)


def test_a_finite_group_of_ones_own_needs_a_list_and_an_action(x64):
    group, z = Shifts(4), jnp.array([0.3, -1.0, 2.0, 0.1])
    assert group.order == 4 and group.identity() == 0
    base = DiagonalGaussian(jnp.array([3.0, 0.0, 1.0, -1.0]), jnp.array([1.0, 2.0, 0.5, 1.0]))
    posterior = Symmetrized(base, group)
    images = np.stack([base.log_prob(jnp.roll(z, shift)) for shift in range(4)])
    np.testing.assert_allclose(posterior.log_prob(z), logsumexp(images) - math.log(4))
    np.testing.assert_allclose(
        posterior.log_ratio(z), base.log_prob(z) - logsumexp(images) + math.log(4)
    )
    draws = jax.vmap(group.sample)(jax.random.split(jax.random.key(0), 400))
    assert np.all(np.abs(np.bincount(draws, minlength=4) - 100) < 45)
    assert invariance_error(jnp.sum, group, z) < 1e-12 < invariance_error(jnp.argmax, group, z)
    both = Product(group, SignFlip(1))
    assert both.order == 8 and both.elements()[0].shape == (8,)
    for call in (lambda: group.inverse(1), lambda: group.compose(1, 2)):
        with pytest.raises(ValueError, match="has no method"):
            call()


def test_messages_of_groups_name_the_call_and_a_bound_that_there_is():
    with pytest.raises(ValueError, match=r"^SignFlip\.act: a sign has to be"):
        SignFlip(1).act(2.0, jnp.ones(1))
    group = Product(Orthogonal(2), SignFlip(1))
    base = IsotropicGaussian((jnp.ones((3, 2)), jnp.ones(1)), 1.0)
    with pytest.raises(ValueError, match="log_prob: no closed.*posteriors.sampled_log_ratio"):
        Symmetrized(base, group).log_prob(base.mean)
    key = jax.random.key(0)
    assert sampled_log_ratio(key, base, group, base.mean, 8) <= math.log(8)
    mirror = Reflection.swap(2, [0], [1])
    reflected = inspect.unwrap(Reflection.reflect)(mirror, [1.0, 2.0])
    np.testing.assert_allclose(reflected, [2, 1])
    with pytest.raises(ValueError, match="IsotropicGaussian: variance .*, got -1"):
        IsotropicGaussian(jnp.ones(2), -1.0)


# ---- Uniformity ----


@pytest.mark.parametrize("k", [1, 2, 4])
def test_orthogonal_sample_is_haar(k, dtype):
    count = 20_000
    sample = jax.jit(jax.vmap(Orthogonal(k).sample))
    T = np.asarray(sample(jax.random.split(jax.random.key(2), count)))
    np.testing.assert_allclose(
        T.transpose(0, 2, 1) @ T, np.broadcast_to(np.eye(k), T.shape), atol=1e-5
    )
    # Five standard errors: an entry has variance 1/k, its square at most 2/k^2.
    np.testing.assert_allclose(T.mean(0), 0, atol=5 / math.sqrt(count * k))
    np.testing.assert_allclose((T**2).mean(0), 1 / k, atol=5 * math.sqrt(2 / count) / k)
    reflections = np.mean(np.linalg.det(T) < 0)
    assert abs(reflections - 0.5) < 5 * 0.5 / math.sqrt(count)
    # Under the Haar law on O(k) the trace has E tr = 0, E tr^2 = 1 and, for k > 1, E tr^4 = 3
    # (Diaconis and Shahshahani 1994): this sees any dependence between entries.
    trace = np.trace(T, axis1=1, axis2=2)
    for power, expected in [(1, 0), (2, 1), (4, 3 if k > 1 else 1)]:
        values = trace**power
        assert abs(values.mean() - expected) <= 5 * values.std() / math.sqrt(count)


# ---- Bad input ----


@pytest.mark.parametrize("transform", ["jit", "vmap", "grad", "scan"])
def test_unknown_element_is_caught_inside(transform):
    z = jnp.ones(2)
    signs = jnp.array([1.0, 2.0])

    def act(g, z):
        return SignFlip(2).act(g, z)

    run = {
        "jit": lambda: jax.jit(act)(2.0, z),
        "vmap": lambda: jax.vmap(act, (0, None))(signs, z),
        "grad": lambda: jax.grad(lambda z: act(2.0, z).sum())(z),
        "scan": lambda: jax.lax.scan(lambda z, g: (act(g, z), None), z, signs),
    }[transform]
    # The sign is known where only the point is traced.
    error = ValueError if transform == "grad" else RuntimeError
    with pytest.raises(error, match=r"sign has to be \+1 or -1"):
        jax.block_until_ready(run())


TURN = jnp.array([[0.0, -1.0], [1.0, 0.0]])


@pytest.mark.parametrize(
    ("group", "bad", "good", "message"),
    [
        (SignFlip(2), 2.0, 1.0, r"sign has to be \+1 or -1"),
        (SignFlip(2), jnp.nan, 1.0, r"sign has to be \+1 or -1"),
        (Permutation(3), [0, 1, 1], [0, 1, 2], "not a permutation of 0, ..., 2"),
        (Permutation(3), [1, 2, 3], [0, 1, 2], "not a permutation"),
        (Orthogonal(2), 1.01 * TURN, TURN, "T is not orthogonal"),
        (Orthogonal(2), TURN.at[0, 0].set(jnp.nan), TURN, "T is not orthogonal"),
        (Scaling(), 0.0, 1.0, "positive and finite"),
        (Scaling(), -1.0, 1.0, "positive and finite"),
        (Scaling(), jnp.nan, 1.0, "positive and finite"),
        (Scaling(), jnp.inf, 1.0, "positive and finite"),
        (Translation(2), [0.0, jnp.nan], [0.0, 1.0], "shift has to be finite"),
        (Product(SignFlip(2), SignFlip(2)), (1.0, 0.0), (1.0, 1.0), r"sign has to be \+1 or -1"),
    ],
)
def test_unknown_elements_raise(group, bad, good, message):
    z = jnp.ones((3, 2)) if isinstance(group, Permutation) else jnp.ones((2, 2))
    z = jnp.ones(2) if isinstance(group, SignFlip | Translation) else z
    bad, good = (
        tuple(map(jnp.asarray, g)) if isinstance(g, tuple) else jnp.asarray(g) for g in (bad, good)
    )
    group.act(good, z)
    for call in [
        lambda: group.act(bad, z),
        lambda: group.inverse(bad),
        lambda: group.compose(bad, good),
        lambda: group.compose(good, bad),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SignFlip(-1), "SignFlip: dim has to be an integer of at least 1, got -1"),
        (lambda: Permutation(0), "Permutation: n has to be an integer of at least 1, got 0"),
        (lambda: Orthogonal(0), "Orthogonal: k has to be an integer of at least 1"),
        (lambda: Translation(0), "Translation: dim has to be an integer of at least 1"),
        (lambda: Product(), "Product: expected one group or more"),
        (lambda: SignFlip(2).act(jnp.ones(2), jnp.ones(2)), r"a sign has to have shape \(\)"),
        (lambda: SignFlip(2).act(1.0, jnp.ones(3)), "z has to have 2 entries in total, got 3"),
        (lambda: SignFlip(2).act(1, jnp.array([1, 2])), "floating-point arrays, got int32"),
        (lambda: SignFlip(2).act(1, ()), "floating-point arrays, got no array"),
        (lambda: Permutation(2).inverse([0, 1, 2]), r"has to have shape \(2,\), got \(3,\)"),
        (lambda: Permutation(2).inverse([0.0, 1.0]), "has to hold integers, got float32"),
        (lambda: Permutation(2).act([1, 0], jnp.ones((3, 2))), "the first axis of z .* length 2"),
        (lambda: Permutation(2).act([1, 0], 1.0), r"length 2, got \(\)"),
        (lambda: Orthogonal(2).compose(TURN, jnp.eye(3)), r"shape \(2, 2\), got \(3, 3\)"),
        (lambda: Orthogonal(2).inverse([[1, 0], [0, 1]]), "T has to hold floating-point"),
        (lambda: Orthogonal(2).act(TURN, jnp.ones((2, 3))), "the last axis of z .* length 2"),
        (lambda: Scaling().act(2.0, (1.0, 1.0, 1.0)), "expected 2 parts, got 3"),
        (lambda: Scaling().act(2.0, 1.0), "tuple, list or array of 2 parts"),
        (lambda: Translation(2).act(jnp.ones(2), jnp.ones(3)), r"z has to have shape \(2,\)"),
        (lambda: Product(SignFlip(1)).act((1, 1), [1.0]), "expected 1 parts, got 2"),
        (lambda: Product(SignFlip(1)).act((1,), jnp.ones((2, 1))), "expected 1 parts, got 2"),
        (lambda: Product(SignFlip(1)).act((1,), {"a": 1.0}), "tuple, list or array of 1 parts"),
        (lambda: Permutation(9).elements(), r"more than 65536 elements, .* sample\(key\)"),
        (lambda: Orthogonal(2).elements(), r"infinitely many elements, .* sample\(key\)"),
        (lambda: Scaling().elements(), "infinitely many elements"),
        (
            lambda: Product(*[SignFlip(1)] * 17).elements(),
            r"more than 65536 elements, .* sample\(key\)",
        ),
        (
            lambda: Product(SignFlip(1), Orthogonal(2)).elements(),
            r"infinitely many elements, .* sample",
        ),
        (lambda: Scaling().sample(jax.random.key(0)), "not compact.*no uniform law.*fix the scale"),
        (lambda: Translation(2).sample(jax.random.key(0)), "not compact.*fix the origin"),
        (lambda: Product(SignFlip(1), Scaling()).sample(jax.random.key(0)), "not compact"),
    ],
)
def test_static_mistakes_raise_value_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_elements_of_other_dtypes(x64):
    assert Translation(1).compose(np.int8([100]), np.int8([100])) == 200  # int8 ends at 127
    for kind in (jnp.float16, jnp.bfloat16):
        T = Orthogonal(3).sample(jax.random.key(0)).astype(kind)
        moved = Orthogonal(3).act(T, jnp.eye(3, dtype=kind))
        assert moved.dtype == kind
        np.testing.assert_allclose(moved.astype(float), T.T.astype(float), atol=0.01)
        with pytest.raises(ValueError, match="not orthogonal"):
            Orthogonal(3).inverse(1.05 * T)
    with pytest.raises(ValueError, match="a sign has to be real"):
        SignFlip(1).inverse(1j)
    # The product of two scales overflows, so it is none.
    large = jnp.float32(1e30)
    with pytest.raises(ValueError, match="positive and finite"):
        jax.block_until_ready(Scaling().compose(large, large))


@pytest.mark.parametrize("bad", [1.5, "2", None, True])
def test_size_that_is_no_integer(bad):
    # The run-time type check of the tests may speak before the package does.
    with pytest.raises((ValueError, TypeError)):
        Permutation(bad)


def test_fields_of_an_own_group_and_orders_beyond_the_floats():
    class Named(SignFlip):
        name: str = "a"

    assert Named(3).dim == 3
    with pytest.raises(ValueError, match="dim has to be an integer"):
        Named(0)
    assert Product(Permutation(171), Orthogonal(2)).order == math.inf
