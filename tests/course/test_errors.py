"""The page of errors: its examples are recomputed, and it holds what others link to.

A test is named after its entry. Each shows that the printed form fails and the other holds.
"""

import math
import re
from pathlib import Path

import numpy as np
from numpy.linalg import det, inv, norm
from numpy.testing import assert_allclose
from scipy.special import expit, gammaln, ive, log_ndtr, ndtr, ndtri

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "book" / "errors.md").read_text("utf-8")
MARKS = ["Where", "Printed", "Should be", "Why", "Status"]
PARTS = ["Errors", "Cautions", "Errors, first preprint only", "Cautions, first preprint only"]
ENTRY = re.compile(r"^\(error-e(\d+)\)=\n#### E(\d+)\. \S.*$", re.M)
FLIP = np.array([[1.0, 2.0], [0.0, -1.0]])  # of order two, and not orthogonal


def angles(count=400):
    """Return the rotations and the reflections of the plane on a grid: exact for smooth periods."""
    t = 2 * np.pi * np.arange(count) / count
    turn = np.moveaxis(np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]]), 2, 0)
    return np.concatenate([turn, turn * [1, -1]])


def log_mean(A):
    """Return F(A), the log of the mean of exp tr(A T^T) over O(2)."""
    return np.log(np.mean(np.exp(np.sum(A * angles(), axis=(1, 2)))))


def butler_wood(sigma, pairs):
    """Return the log of equation 7, with the pairs of the product in the denominator."""
    k = len(sigma)
    y = 2 * sigma / (k * (np.sqrt(4 * sigma**2 / k**2 + 1) + 1))
    denominator = sum(np.log1p(-(y[i] ** 2) * y[j] ** 2) for i, j in pairs(k))
    return np.sum(sigma * y + k / 2 * np.log1p(-(y**2))) - denominator / 2


def upper(k):
    return [(i, j) for i in range(k) for j in range(i, k)]


def double(k):
    return [(i, j) for i in range(k) for j in range(k)]


def mean(*group):
    """Return the mean of a group's matrices, the projection onto what the group leaves alone."""
    return np.mean(group, axis=0)


def mirror(P):
    return np.eye(len(P)) - 2 * P


def slope(f, x, h=1e-6):
    """Return the derivative by central differences, along each coordinate of x."""
    steps = h * np.eye(len(x))
    return np.stack([(f(x + e) - f(x - e)) / (2 * h) for e in steps], axis=-1)


# Symmetrized variational inference


def test_e1():
    """The trace against T is that of B; with the symmetric part the KL is too large."""
    rng = np.random.default_rng(0)
    X, M, c = rng.normal(size=(3, 2)), rng.normal(size=(3, 2)), 0.5
    B = M.T @ X / c
    exponents = [(np.sum((X - M) ** 2) - np.sum((X @ T.T - M) ** 2)) / (2 * c) for T in angles(9)]
    A = (B + B.T) / 2
    assert_allclose(exponents, [np.trace(B @ (T.T - np.eye(2))) for T in angles(9)], atol=1e-12)
    assert np.trace(A) - log_mean(A) > np.trace(B) - log_mean(B) + 0.01
    skew = np.array([[0.0, 1.0], [-1.0, 0.0]])
    assert_allclose(log_mean(skew), np.log((ive(0, 2) * np.exp(2) + 1) / 2))  # > 0 = F(0)
    assert_allclose(log_mean(skew.T), log_mean(skew))


def exact_plane(s):
    """Return F of s times the identity for k = 2, by I_0(2s) and I_0(0) = 1."""
    return 2 * s + np.log((ive(0, 2 * s) + np.exp(-2 * s)) / 2)


def test_e2():
    """From sigma = 1e4 to 1e6 the double product gains log(100) / 2; the right one nothing."""

    def error(s, pairs):
        return butler_wood(np.array([s, s]), pairs) - exact_plane(s)

    assert_allclose(error(1e6, double) - error(1e4, double), math.log(100) / 2, atol=1e-3)
    assert_allclose(error(1e6, upper), error(1e4, upper), atol=1e-3)


def test_e3():
    k, s = 2, 1e-3
    y = np.array([2 * s / (k * np.sqrt(4 * s**2 / k**2 + 1) + 1), s / k])
    order2 = s * y - k / 2 * y**2
    assert_allclose(order2, [2 * s**2 / (k + 1) ** 2, s**2 / (2 * k)], rtol=1e-5)
    assert_allclose(exact_plane(s) / 2, order2[1], rtol=1e-5)


def test_e4():
    A = np.random.default_rng(0).normal(size=(2, 2))
    u, s, v = np.linalg.svd(A)
    first = slope(lambda a: np.linalg.svd(a.reshape(2, 2))[1][0], A.ravel())
    listing = slope(lambda a: norm(a.reshape(2, 2) @ v[0]), A.ravel())  # v held fixed
    assert_allclose(listing, first, atol=1e-8)
    assert_allclose(first.reshape(2, 2), np.outer(u[:, 0], v[0]), atol=1e-8)


def test_e5():
    s = 1e7
    error = butler_wood(np.array([s]), upper) - (s + np.log1p(np.exp(-2 * s)) - math.log(2))
    assert_allclose(error, (math.log(2) - 1) / 2, atol=1e-6)


def test_e14():
    """Over all of the plane and over the half u + v >= 0 the maximum is that at max(r - 1, 0)."""
    u, v = np.meshgrid(*2 * [np.linspace(-2, 2, 401)])
    for r in (0.5, 1.0, 2.0, 3.0):
        height = -(u**2 + v**2) / 2 - (r - u * v) ** 2 / 2
        half = np.where(u + v >= 0, height, -np.inf)
        w = max(r - 1, 0)
        assert half.max() == height.max() <= -w - (r - w) ** 2 / 2 + 1e-12
        assert abs((u * v).flat[half.argmax()] - w) < 0.02  # the grid's steps are .01


def test_e15():
    """With the group of z and 1/z equation 3 gives no invariant density."""

    def q(z):
        return np.exp(-z)

    def symmetrized(z):
        return (q(z) + q(1 / z) / z**2) / 2

    assert_allclose(symmetrized(1 / 3), 9 * symmetrized(3.0))


# GRAE


def gaussian_kl(m, s2):
    return (m**2 + s2 - np.log(s2) - 1) / 2


def test_e6():
    """Over beta, the objective is the bound at variance beta plus a constant; at 1/beta not."""
    beta, x, w = 0.3, 1.7, 0.8

    def beta_vae(m, s2):
        return -((x - w * m) ** 2 + w**2 * s2) / 2 - beta * gaussian_kl(m, s2)

    def bound(m, s2, variance):
        square = (x - w * m) ** 2 + w**2 * s2
        return -(square / variance + np.log(2 * np.pi * variance)) / 2 - gaussian_kl(m, s2)

    m, s2 = np.array([0.0, 0.5, 2.0]), np.array([1.0, 0.2, 0.7])
    assert_allclose(np.ptp(beta_vae(m, s2) / beta - bound(m, s2, beta)), 0, atol=1e-12)
    assert np.ptp(beta_vae(m, s2) - bound(m, s2, 1 / beta)) > 0.1
    assert np.ptp(beta_vae(m, s2) / beta - bound(m, s2, 1 / beta)) > 0.1


def test_e10():
    """Taylor minus GRAE is the form with K Sigma; the printed one, read kindly, is not."""
    rng = np.random.default_rng(0)
    beta, d, J = 0.4, 3, rng.normal(size=(5, 3))
    L = np.tril(rng.normal(size=(d, d)))
    Sigma, JJ, eye = L @ L.T + np.eye(d), J.T @ J, np.eye(d)
    K = eye + JJ / beta
    taylor = np.trace(JJ @ Sigma) / 2 + beta / 2 * (np.trace(Sigma) - np.log(det(Sigma)) - d)
    grae = beta / 2 * np.log(det(K))

    def gap(A):
        return beta / 2 * (np.trace(A) - np.log(det(A)) - d)

    assert_allclose(taylor - grae, gap(K @ Sigma))
    assert_allclose(gap(K @ inv(K)), 0, atol=1e-12)
    assert gap(eye + JJ @ inv(K) / beta) > 0.1  # printed, with d outside the logarithm


def test_e13():
    """One latent, a = 2z: the sigmoid's own curvature stays."""
    z, h = 0.5, 1e-4
    s = expit(2 * z)
    second = (expit(2 * (z + h)) - 2 * s + expit(2 * (z - h))) / h**2
    assert_allclose(second, 4 * s * (1 - s) * (1 - 2 * s), atol=1e-6)
    assert abs(second) > 0.1


def test_e22():
    """Half a turn for two exponential latents: the determinant is p(z) / p(r(z)), and not 1."""

    def r(z):  # F(z) = 1 - exp(-z), and psi is the normal distribution function
        n = ndtri(-np.expm1(-z))
        return -log_ndtr(n)  # -log(1 - psi(-n))

    z = -np.log1p(-ndtr(np.array([1.0, 0.0])))
    there = r(z)
    assert_allclose(there[1], z[1])
    determinant = abs(det(slope(r, z)))
    assert_allclose(determinant, np.exp(there.sum() - z.sum()), rtol=1e-6)
    assert abs(determinant - 1) > 0.5


def test_e23():
    """With lambda >= beta the objective grows with s; for g = z^2 / 2 the Hessian at 0 is x."""
    beta, x, h = 0.5, 0.8, 1e-3
    log_p = [-((x - z**2 / 2) ** 2) / 2 for z in (-h, 0.0, h)]
    assert_allclose((log_p[0] - 2 * log_p[1] + log_p[2]) / h**2, x, atol=1e-5)
    s = np.logspace(0, 6, 7)
    objective = s * (x - beta) / 2 + beta / 2 * np.log1p(s)
    assert np.all(np.diff(objective) > 0) and objective[-1] > 1e5
    assert 1 - x / beta < 0  # what equation 9 inverts


def test_e24():
    rng = np.random.default_rng(0)
    J, H, beta = rng.normal(size=(4, 2)), -np.diag([0.5, 1.0, 2.0, 3.0]), 1e6
    regularizer = beta / 2 * np.linalg.slogdet(np.eye(2) - J.T @ H @ J / beta)[1]
    assert_allclose(regularizer, np.sum((np.sqrt(-H) @ J) ** 2) / 2, rtol=1e-4)


def test_e26():
    """The right singular vectors' angle, its bound, and the log determinant by sin^2."""
    theta = np.linspace(0.05, np.pi - 0.05, 50)
    found, logdet = [], []
    for t in theta:
        W = np.array([[2.0, np.cos(t)], [0.0, np.sin(t)]])
        v = np.linalg.svd(W)[2][0]
        found.append(math.atan(v[1] / v[0]))
        logdet.append(np.log(det(W @ W.T + 0.05**2 * np.eye(2))))
    assert_allclose(np.tan(2 * np.array(found)), 4 / 3 * np.cos(theta), atol=1e-9)
    assert np.abs(found).max() < math.atan(1 / 2)
    order = np.argsort(np.sin(theta) ** 2, kind="stable")
    assert np.all(np.diff(np.array(logdet)[order]) > -1e-9)  # the ELBO falls with sin^2
    assert np.all(np.diff(np.abs(found)[order]) < 1e-9)  # and so does the angle


def test_e28():
    """relu, x = 0: the expansion adds s^2 / 2 or nothing, the expected loss s^2 / 4."""
    s, z = 0.3, np.linspace(-12, 12, 100_001)
    weights = np.exp(-(z**2) / 2)
    expected = np.sum(np.maximum(s * z, 0) ** 2 / 2 * weights) / np.sum(weights)
    assert_allclose(expected, s**2 / 4, rtol=1e-6)


def test_e30():
    """A signed permutation keeps a diagonal covariance, and a third of a right angle does not."""
    sign, S = np.diag([-1.0, 1.0]), np.diag([1.0, 2.0])
    assert_allclose(sign @ S @ sign.T, S)
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    turn = np.array([[c, -s], [s, c]])
    assert abs((turn @ S @ turn.T)[0, 1]) > 0.1


def test_bernoulli_hessian_is_right():
    for x, log_p in ((1, np.log), (0, np.log1p)):
        g, h, sign = 0.3, 1e-4, 1 if x else -1
        second = (log_p(sign * (g + h)) - 2 * log_p(sign * g) + log_p(sign * (g - h))) / h**2
        assert_allclose(second, -1 / (1 - x - g) ** 2, rtol=1e-5)


# syre, the first preprint


def test_e7():
    """The mean of a chi variable is at most the square root of its degrees of freedom."""
    rank = np.arange(1, 200)
    chi = np.sqrt(2) * np.exp(gammaln((rank + 1) / 2) - gammaln(rank / 2))
    assert np.all(chi <= np.sqrt(rank))
    assert_allclose(chi[-1] / np.sqrt(rank[-1]), 1, atol=0.01)


def test_e12():
    """A constant loss: each diagonal P is a symmetry about 0, and P theta_0 is not 0."""
    D, theta, anchor = np.diag([1.0, 2.0, 3.0]), np.array([0.3, -1.0, 2.0]), np.array([1, -2, 1])
    for diagonal in np.ndindex(2, 2, 2):
        P = np.diag(diagonal).astype(float)
        image = mirror(P) @ theta
        assert_allclose(image @ D @ image, theta @ D @ theta)
        assert norm(P @ anchor) > 0 or not any(diagonal)


def test_e17():
    """Losses whose advanced form has a symmetry with a projection that does not commute with D."""
    H, D, gamma = np.array([[2.0, 1.0], [1.0, 1.0]]), np.diag([0.9, 1.1]), 0.1
    anchor, theta = np.array([0.3, -0.7]), np.array([1.2, 0.4])

    def loss(t):
        return (t + anchor) @ H @ (t + anchor) + gamma * t @ D @ t

    M = H + gamma * D
    v = np.linalg.eigh(M)[1][:, 0]
    P = np.outer(v, v)
    centre = P @ -inv(M) @ H @ anchor
    assert_allclose(loss(theta + centre), loss(mirror(P) @ theta + centre))
    assert norm(P @ D - D @ P) > 0.05
    # With Assumption 1: in turned coordinates a and b the decay is a^2 + b^2 + 2 s a b.
    s, v, w = 0.1, np.array([1, 1]) / np.sqrt(2), np.array([1, -1]) / np.sqrt(2)
    assert_allclose(
        theta @ D @ theta, (v @ theta) ** 2 + (w @ theta) ** 2 - 2 * s * (v @ theta) * (w @ theta)
    )

    def fitted(t):
        a, b = v @ (t + anchor), w @ (t + anchor)
        return a**2 + 2 * gamma * s * a * b + np.exp(b) + np.exp(-2 * b)

    def advanced(t):
        return fitted(t) + gamma * t @ D @ t

    P = np.outer(v, v)
    centre = -(v @ anchor + gamma * s * (w @ anchor)) / (1 + gamma) * v
    assert_allclose(advanced(theta + centre), advanced(mirror(P) @ theta + centre))
    assert norm(P @ D - D @ P) > 0.05
    # The loss itself has no such symmetry, about no centre and with no linear term: it is not even
    # in a, by an amount that depends on b.
    odd = [fitted(-anchor + v + b * w) - fitted(-anchor - v + b * w) for b in (0.0, 1.0)]
    assert abs(odd[1] - odd[0]) > 0.01
    # Equation 24 for any P and centre: the difference of the two decays has the factor gamma.
    Q, t = np.array([[0.5, 0.5], [0.5, 0.5]]), np.array([0.2, 0.2])
    moved = mirror(Q) @ theta + t
    decay = gamma * ((theta + t) @ D @ (theta + t) - moved @ D @ moved)
    assert_allclose(decay, 4 * gamma * theta @ Q @ D @ ((np.eye(2) - Q) @ theta + t))


def test_e31():
    D, P, anchor, theta = np.diag([1.0, 2.0]), np.eye(2), np.array([1.0, 1.0]), np.array([0.3, 2.0])
    image = mirror(P) @ theta
    assert_allclose(image @ D @ image, theta @ D @ theta)  # a symmetry about 0
    centre = P @ anchor
    assert_allclose(P @ centre, centre)
    assert abs(det(np.stack([D @ centre, centre]))) == 1  # no multiple of each other


def test_e18():
    s, a, b, gamma, t = 0.1, 0.02, -0.03, 0.5, 3.0
    P, D = np.array([[1, -1], [-1, 1]]) / 2, np.diag([1 + s, 1 - s])  # P = I - mean of the swap
    anchor = np.array([a, b])

    def left(t):
        return 2 * gamma * P @ D @ (np.full(2, t) - anchor)

    formula = gamma * (2 * s * t - (1 + s) * a + (1 - s) * b) * np.array([1, -1])
    right = -2 * gamma * P @ D @ anchor + 2 * gamma * P @ (D - np.eye(2)) @ np.full(2, t)
    assert_allclose(left(t), formula)
    assert_allclose(left(t), right)
    assert_allclose(left(((1 + s) * a - (1 - s) * b) / (2 * s)), 0, atol=1e-15)
    assert norm(left(t)) > 5 * norm(2 * gamma * P @ anchor)  # the printed right side


def test_e32():
    eye = np.eye(2)
    assert_allclose(FLIP @ FLIP, eye)
    small, large = mean(eye, FLIP), mean(eye, -eye, FLIP, -FLIP)
    anchor = np.array([0.0, 1.0])
    assert_allclose((eye - small) @ anchor, [-1, 1])
    assert norm((eye - small) @ anchor) > norm((eye - large) @ anchor) == 1
    # Orthogonal: the signs of two coordinates, and of the first alone.
    few, many = np.diag([0.0, 1.0]), np.zeros((2, 2))
    assert norm((eye - few) @ anchor) <= norm((eye - many) @ anchor)


def test_e19():
    z, n = np.diag([1.0, 0.0]), np.ones(2)  # a mean, its range and its kernel
    assert norm((np.eye(2) - z) @ n) > 0 and norm(z @ n - n) > 0 and norm(z @ n) > 0
    eye, z1, z2 = np.eye(3), np.diag([-1, -1, 1]), np.diag([1, -1, -1])
    n = np.array([0, 1, 0])
    assert norm((eye - mean(eye, z1 @ z2)) @ n) == 0
    assert norm((eye - mean(eye, z1)) @ n) == norm((eye - mean(eye, z2)) @ n) == 1
    assert 1 not in (math.log(3), math.log2(3)) and math.log2(3) > 1


def test_e25():
    """The subgroup of order p turns one plane only, and the smallest length falls like m^-1/2."""
    primes = (2, 3, 5)
    order = math.prod(primes)

    def element(power):
        turns = np.zeros((6, 6))
        for j, p in enumerate(primes):
            t = 2 * np.pi * power / p
            block = [[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]]
            turns[2 * j : 2 * j + 2, 2 * j : 2 * j + 2] = block
        return turns

    for j, p in enumerate(primes):
        average = mean(*(element(order // p * i) for i in range(p)))
        assert_allclose(np.eye(6) - average, np.diag(np.repeat(np.arange(3) == j, 2)), atol=1e-12)
    # Pr(length > x) = exp(-x^2 / 2), so the least of m has exp(-m x^2 / 2) and its mean:
    x = np.linspace(0, 12, 120_001)
    means = [np.sum(np.exp(-m * x**2 / 2)) * x[1] for m in (1, 4)]
    assert_allclose(means[1] / means[0], 1 / 2, rtol=1e-3)


def test_e25_bound():
    """Z6 x Z2 x Z3: the weakest push of all subgroups keeps to r epsilon / sqrt(2 pi), with r = 4.

    With gamma = sigma_0 = 1. Two signs reach a probability of 2 epsilon / sqrt(2 pi), so r is not
    too large by more than the two planes, on which the elements of order three act.
    """
    orders = np.array([6, 2, 3])
    kinds = [(3, 0, 0), (3, 1, 0), (2, 0, 1), (0, 0, 1)]  # characters: two signs, two planes
    sizes = np.array([1, 1, 2, 2])
    draws = np.random.default_rng(0).normal(size=(200_000, 6))
    squares = np.add.reduceat(draws**2, np.cumsum(sizes) - sizes, axis=1)
    moved = set()  # for each element but the identity, what the group that it generates moves
    for element in np.ndindex(*orders):
        turns = [np.dot(kind, np.array(element) / orders) % 1 for kind in kinds]
        moved.add(tuple(not np.isclose(turn, round(turn)) for turn in turns))
    assert len(moved) > 7 and (False,) * 4 in moved  # the identity
    moved.discard((False,) * 4)
    weakest = np.min([2 * np.sqrt(squares @ np.array(kind, float)) for kind in moved], axis=0)
    r, order = 4, math.prod(orders)  # two generators for each of the primes 2 and 3
    assert r <= math.log2(order)
    for epsilon in (0.05, 0.2, 0.5):
        share, unit = np.mean(weakest <= epsilon), epsilon / np.sqrt(2 * np.pi)
        assert 1.7 * unit < share < r * unit


def test_e16():
    oblique = np.array([[1, 1], [0, 0]])
    assert np.array_equal(oblique @ oblique, oblique)
    assert np.array_equal(oblique @ [1, 1], [2, 0])


def test_e20():
    """With one datum in two dimensions the solution keeps the anchor's null part, at any gamma."""
    x, y, anchor = np.array([1.0, 0.0]), 2.0, np.array([0.5, 0.7])
    for gamma in (1.0, 1e-6):
        matrix = gamma * np.eye(2) + np.outer(x, x)
        ridge, biased = inv(matrix) @ (y * x), inv(matrix) @ (y * x + gamma * anchor)
        assert_allclose((biased - ridge)[1], anchor[1])
        assert_allclose((biased - ridge)[0], gamma / (gamma + 1) * anchor[0])


def test_e21():
    # Equation 1: along the symmetric direction the printed remainder is O(delta^3).
    P, delta = np.diag([0.0, 1.0]), np.array([1e-3, 0.0])
    assert np.sum(delta**2) > 100 * norm(delta) ** 3 and norm(P @ delta) == 0
    # Of finite order and unipotent: a shear has no power I.
    shear = np.array([[1, 1], [0, 1]])
    assert all(np.linalg.matrix_power(shear, m)[0, 1] == m for m in range(1, 9))
    # The gradient of an invariant loss: the transpose makes it zero.
    broken, gradient = np.eye(2) - mean(np.eye(2), FLIP), np.ones(2)
    assert_allclose(FLIP.T @ gradient, gradient)  # theta_1 + theta_2 is invariant
    assert_allclose(broken @ gradient, [-1, 1])
    assert_allclose(broken.T @ gradient, 0)
    # Lemma 7 with one dimension and P = 1: f(x) = (x - 2)^2 + 3x, so x' = 2 and c = 6.
    x = np.linspace(-1, 1, 5)

    def f(x):
        return (x - 2) ** 2 + 3 * x

    assert_allclose(f(x + 2), f(-x + 2) + 6 * x)
    assert_allclose(f(x + 2) - 3 * (x + 2), f(-x + 2) - 3 * (-x + 2))  # g is even about x'
    assert_allclose(f(x + 2) - f(-x + 2), 6 * x)  # printed as g: it is odd
    # Equation 50: chi variables, rank 1 to 5, below epsilon with at most this probability.
    draws = np.random.default_rng(0).normal(size=(20_000, 5))
    for epsilon in (0.2, 1.0, 3.0):
        share = np.mean(norm(2 * draws, axis=1) <= epsilon)  # gamma = sigma_0 = 1
        assert share <= epsilon / np.sqrt(2 * np.pi)

    # Appendix C.3: an anchor twice as large has four times the eigenvalues.
    A, x = draws[:3], np.random.default_rng(1).normal(size=(5, 50))
    once, twice = (np.linalg.eigvalsh(np.cov(scale * A @ x)) for scale in (1, 2))
    assert_allclose(twice, 4 * once)


# The page


def parts():
    """Return the text of each part, by its heading."""
    pieces = re.split(r"^## (.+)$", PAGE, flags=re.M)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def entries(text=PAGE):
    """Return the text of each entry by its number; an entry ends at the next label or heading."""
    found = {}
    for match in ENTRY.finditer(text):
        rest = text[match.end() :]
        end = re.search(r"^\(error-|^#{2,4} ", rest, re.M)
        found[int(match[2])] = rest[: end.start()] if end else rest
    return found


def test_parts_and_numbers():
    """Each entry stands in one of the parts, once, under the label of its number."""
    assert list(parts()) == [*PARTS, "Checked, and right"]
    assert all(label == number for label, number in ENTRY.findall(PAGE))
    assert len(ENTRY.findall(PAGE)) == PAGE.count("\n(error-e") == len(entries())
    inside = [number for part in PARTS for number in entries(parts()[part])]
    assert sorted(inside) == sorted(entries())


def test_entries_are_complete():
    """An entry says where, what is printed, what should be, why, and where the book shows it."""
    for number, text in entries().items():
        slips = re.findall(r"^- \*.*?(?=^- |^\*|\Z)", text, re.M | re.S)
        marks = re.findall(r"^\*([A-Z][a-z ]+)\.\*\s", text, re.M)
        assert marks == (["Status"] if slips else MARKS), number
        for slip in slips:
            assert re.search(r"Printed:\s.*Should\s+be:\s.*Why:\s", slip, re.S), slip


def test_entries_on_syre_say_first_preprint():
    """What is said of the first preprint is not said of the published version, and is marked."""
    for name, part in parts().items():
        for number, text in entries(part).items():
            assert ("irst preprint" in text) == ("first preprint" in name), number


def test_tests_are_named():
    """The page names every test of an example here, and no other; an error names one."""
    named = re.findall(r"`(test_\w+)`", PAGE)
    ours = [name for name in globals() if re.match(r"test_e\d|test_bernoulli", name)]
    assert sorted(named) == sorted(ours)
    for number, text in entries().items():
        assert set(re.findall(r"`test_e(\d+)`", text)) <= {str(number)}
    for part in (PARTS[0], PARTS[2]):
        assert all(re.search(r"Test:\s`test_e", text) for text in entries(parts()[part]).values())


def test_nothing_links_to_a_missing_entry():
    """Chapters link by label, or name an entry beside a link; the scoreboard names entries."""
    linked = set()
    for page in (ROOT / "book").rglob("*.md"):
        text = page.read_text("utf-8")
        linked |= {int(n) for n in re.findall(r"<error-e(\d+)>", text)}
        beside = " ".join(re.findall(r"\[([^\]]*)\]\([^)]*errors\.md", text))
        linked |= {int(n) for n in re.findall(r"\bE(\d+)\b", beside)}
    rows = (ROOT / "book" / "scoreboard.yml").read_text("utf-8")
    linked |= {int(number) for number in re.findall(r"\bE(\d+)\b", rows)}
    assert linked  # or the patterns are stale
    assert linked - set(entries()) == set()
