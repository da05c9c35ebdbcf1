"""Uniqueness of the latents of a beta-VAE (Kumar & Poole 2020, Figures 1, 5 and 6).

Data x = nu(W z) + e in two dimensions, a decoder nu(A z) + b, posteriors with a diagonal or a full
covariance, amortised as N(C x + d, Sigma) or with a mean and a covariance for each point. Plain
gradient descent on all data: step size .1, tenfold smaller after every n iterations, 5 n in all.
Two angles are measured, in (-45, 45] degrees, permutations and reflections of the axes removed:

- "angle", the paper's: of the rotation that takes the posterior means to the true latents;
- "offset": of the latent axes from those that a diagonal posterior prefers for the found decoder,
  up to rotation. `rotation_cost` is what the offset costs a diagonal posterior, in nats a point,
  with the curvature of the expected misfit at the found posteriors, frozen.

"expected" is the angle that the preferred axes of the true model have. It is not 0, since the
paper's W, with columns of lengths 2 and 1, need not have orthogonal columns: under the identity
it is that of the right singular vectors of W. For comparison there are cases with orthogonal ones.

What the paper leaves open:

- The model's noise: the true .05.
- The loss: the negative evidence bound of one point times the noise variance, that is half the
  squared error plus .0025 KL. A step of .1 on the bound itself, 400 times larger, diverges for
  every nu. Global parameters follow the mean over the points, those of a point its own term.
- The start: A, C' and means N(0, .25), b and d zero, D' lower triangular, with a diagonal uniform
  on (.5, 1.5) and N(0, 1) below it.
- The expectations: 4 nodes of Gauss-Hermite quadrature for each output, whose input nu sees as one
  Gaussian number. Nothing is sampled. The reported bounds are in nats a point, from 40 nodes.

The paper's fixed random rotations, C = O_1 C' and Sigma = O_2 D' D'^T O_2^T, are kept. Gradient
descent cannot see them: its step on D' is that on O_2 D', and the same holds of C'. They change the
start, and the path if D' is held triangular. "control" cases show both, with a start twice as wide.

Smaller than the paper: 500 points for 4000 (but 4000 for the amortised identity, where moments of
the data suffice); 140 runs a setting with amortisation and 100 without, for 420 (a control: 200 of
n = 1000); float32 descent, but for the amortised identity. Larger: n to 50,000, for the paper's
20,000, with amortisation. Runs of one number share data and start across the families.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

SETTINGS = {
    "seed": 2020,
    "points": {"amortised identity": 4000, "other": 500},
    "norms": [2.0, 1.0],  # of the columns of W
    "noise": 0.05,  # standard deviation, in the data and in the model
    "learning_rate": 0.1,
    "stages": 5,  # of n iterations each
    "runs": {  # for each n
        "amortised": {
            "100": 10,
            "500": 10,
            "1000": 10,
            "2000": 10,
            "5000": 10,
            "10000": 30,
            "20000": 30,
            "50000": 30,
        },
        "unamortised": {
            "100": 10,
            "500": 10,
            "1000": 10,
            "2000": 10,
            "5000": 10,
            "10000": 30,
            "20000": 20,
        },
        "control": {"1000": 200},
    },
    "batch": 10,
    "start": 0.5,  # standard deviation of the first A, C' and means
    "spread": 1.0,  # of the first D'
    "control_spread": 2.0,
    "nodes": 4,
    "fine_nodes": 40,
    "grid": 900,  # of rotations
    "top": 0.25,  # part of the runs that is called the top
}
# A case of a few seconds, which a test runs again: its name, and what it changes in the settings.
SMALL = (
    "unamortised, tanh, diagonal",
    {"points": {"amortised identity": 30, "other": 30}, "runs": {"unamortised": {"100": 2}}},
)

LINKS = {
    "identity": lambda u: u,
    "tanh": jnp.tanh,
    "elu": lambda u: jnp.where(u > 0, u, jnp.exp(jnp.minimum(u, 0)) - 1),
    "sigmoid": lambda u: (1 + jnp.tanh(u / 2)) / 2,
}
FAMILIES = ("diagonal", "full")
UNIFORM = 90 / math.sqrt(12)  # root mean square of an angle without preference


def cases(settings):
    """Return one case for each setting, two with an orthogonal W, and the controls."""
    both = [
        (
            f"{amortised}, {link}, {family}",
            {"runs": amortised, "link": link, "family": family},
        )
        for amortised in ("amortised", "unamortised")
        for link in LINKS
        for family in FAMILIES
    ]
    orthogonal = [
        (
            f"amortised, {link}, diagonal, orthogonal W",
            {"runs": "amortised", "link": link, "family": "diagonal", "orthogonal": True},
        )
        for link in ("identity", "tanh")
    ]
    controls = [
        (
            f"control, full, {shape} D', {'rotated' if rotated else 'plain'}",
            {
                "runs": "control",
                "link": "identity",
                "family": "full",
                "triangular": shape == "triangular",
                "rotated": rotated,
            },
        )
        for shape in ("square", "triangular")
        for rotated in (True, False)
    ]
    return both + orthogonal + controls


def run_case(settings, case, key):
    """Return n, bound, angles and the rest of every run, a list for each."""
    # The keys do not depend on the case: runs of one number share data and start.
    key = jax.random.key(settings["seed"])
    case = dict(case)
    kind = case.pop("runs")
    lengths = [int(n) for n, count in settings["runs"][kind].items() for _ in range(count)]
    spread = settings["control_spread" if kind == "control" else "spread"]
    runs = []
    with jax.enable_x64(True):
        keys = jax.random.split(key, len(lengths))
        for n in sorted(set(lengths)):
            numbers = [i for i, length in enumerate(lengths) if length == n]
            for first in range(0, len(numbers), settings["batch"]):
                batch = keys[jnp.asarray(numbers[first : first + settings["batch"]])]
                options = {"amortised": kind == "amortised", "spread": spread}
                runs += _run_batch(settings, batch, n, **options, **case)
    return {name: [run[name] for run in runs] for name in runs[0]}


def _run_batch(
    settings,
    keys,
    n,
    *,
    link,
    family,
    amortised,
    spread,
    orthogonal=False,
    triangular=False,
    rotated=True,
):
    moments = link == "identity" and amortised
    count = settings["points"]["amortised identity" if moments else "other"]
    W, Z, X = jax.vmap(lambda key: draw_data(settings, key, link, count, orthogonal))(keys)
    params, rotations = jax.vmap(
        lambda key: draw_start(
            settings, jax.random.fold_in(key, 1), count, amortised, spread, rotated
        )
    )(keys)
    kind = jnp.float64 if moments else jnp.float32
    start = jax.tree.map(lambda leaf: leaf.astype(kind), (params, rotations, X))
    options = {
        "link": link,
        "family": family,
        "amortised": amortised,
        "triangular": triangular,
        "noise": settings["noise"],
        "nodes": settings["nodes"],
    }
    params = descend(
        *start, n, rate=settings["learning_rate"], stages=settings["stages"], **options
    )
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
    found = []
    for i in range(len(keys)):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], (params, rotations, X, W, Z))
        found.append({"n": n} | _measure(settings, *one, options))
    return found


def draw_data(settings, key, link, count, orthogonal=False):
    """Return W, the true latents and the observations, points in columns."""
    keys = jax.random.split(key, 3)
    W = jax.random.normal(keys[0], (2, 2))
    if orthogonal:
        W = jnp.linalg.qr(W)[0]
    W = W / jnp.linalg.norm(W, axis=0) * jnp.asarray(settings["norms"])
    Z = jax.random.normal(keys[1], (2, count))
    noise = settings["noise"] * jax.random.normal(keys[2], (2, count))
    return W, Z, LINKS[link](W @ Z) + noise


def draw_start(settings, key, count, amortised, spread, rotated=True):
    """Return the decoder's and the posteriors' first parameters, and the fixed rotations.

    A D' is stored by rows, as four arrays: for one point, or for all.
    """
    keys = jax.random.split(key, 5)
    scale, shape = settings["start"], (1,) if amortised else (count,)
    decoder = scale * jax.random.normal(keys[0], (2, 2)), jnp.zeros(2)
    if amortised:
        means = scale * jax.random.normal(keys[1], (2, 2)), jnp.zeros(2)
    else:
        means = tuple(scale * jax.random.normal(keys[1], (2, count)))
    diagonal = jax.random.uniform(keys[2], (2, *shape), minval=0.5, maxval=1.5)
    below = jax.random.normal(keys[3], shape)
    D = tuple(spread * entry for entry in (diagonal[0], jnp.zeros(shape), below, diagonal[1]))
    angles = jax.random.uniform(keys[4], (2,), maxval=2 * math.pi) * rotated
    c, s = jnp.cos(angles), jnp.sin(angles)
    rotations = jnp.stack([jnp.stack([c, -s], -1), jnp.stack([s, c], -1)], -2)
    return (decoder, (means, D)), rotations


def posteriors(params, rotations, X, *, amortised, triangular):
    """Return the two coordinates of the means, and the entries of D, with Sigma = D D^T."""
    means, D = params[1]
    if amortised:
        C, d = rotations[0] @ means[0], means[1]
        means = tuple(C[k, 0] * X[0] + C[k, 1] * X[1] + d[k] for k in range(2))
    R, corner = rotations[1], 0.0 if triangular else D[1]
    D = [[R[k, 0] * D[0] + R[k, 1] * D[2], R[k, 0] * corner + R[k, 1] * D[3]] for k in range(2)]
    return means, D


def _variances(A, D, family):
    """Return the variances of the decoder's two inputs A z."""
    if family == "diagonal":
        S = [D[k][0] ** 2 + D[k][1] ** 2 for k in range(2)]
        return [A[j, 0] ** 2 * S[0] + A[j, 1] ** 2 * S[1] for j in range(2)]
    return [
        sum((A[j, 0] * D[0][column] + A[j, 1] * D[1][column]) ** 2 for column in range(2))
        for j in range(2)
    ]


def _divergence(means, D, family):
    S = [D[k][0] ** 2 + D[k][1] ** 2 for k in range(2)]
    if family == "diagonal":
        log_determinant = jnp.log(S[0]) + jnp.log(S[1])
    else:
        log_determinant = 2 * jnp.log(jnp.abs(D[0][0] * D[1][1] - D[0][1] * D[1][0]))
    return (S[0] + S[1] + means[0] ** 2 + means[1] ** 2 - 2 - log_determinant) / 2


def _misfit(link, y, u, variance, nodes):
    """Return the expectation of (y - nu(v))^2 for Gaussian v around u."""
    if link == "identity":
        return (y - u) ** 2 + variance
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    deviation = jnp.sqrt(variance)
    return sum(
        weight * (y - LINKS[link](u + deviation * point)) ** 2
        for point, weight in zip(points.tolist(), (weights / weights.sum()).tolist(), strict=True)
    )


def loss(params, rotations, X, *, link, family, amortised, triangular, noise, nodes):
    """Return the negative bound of a point times the noise variance, less a constant."""
    A, b = params[0]
    means, D = posteriors(params, rotations, X, amortised=amortised, triangular=triangular)
    variances = _variances(A, D, family)
    misfit = sum(
        _misfit(link, X[j] - b[j], A[j, 0] * means[0] + A[j, 1] * means[1], variances[j], nodes)
        for j in range(2)
    )
    return jnp.mean(misfit / 2 + noise**2 * _divergence(means, D, family))


def loss_of_moments(params, rotations, mean, second, *, family, triangular, noise):
    """Return the loss of an amortised linear model from the data's first two moments."""
    (A, b), ((C, d), _) = params
    zero = jnp.zeros((2, 1), mean.dtype)
    _, D = posteriors(params, rotations, zero, amortised=True, triangular=triangular)
    C = rotations[0] @ C
    E, e = jnp.eye(2) - A @ C, A @ d + b
    misfit = jnp.sum((E @ second) * E) - 2 * e @ E @ mean + e @ e + sum(_variances(A, D, family))
    square = jnp.sum((C @ second) * C) + 2 * d @ C @ mean + d @ d
    divergence = _divergence((zero[0], zero[1]), D, family) + square / 2
    return jnp.sum(misfit / 2 + noise**2 * divergence)


@functools.partial(
    jax.jit,
    static_argnames=(
        "link",
        "family",
        "amortised",
        "triangular",
        "noise",
        "nodes",
        "rate",
        "stages",
    ),
)
def descend(params, rotations, X, n, *, rate, stages, **options):
    """Return the parameters after the descent, for a batch of runs."""
    count = X.shape[-1]
    if options["link"] == "identity" and options["amortised"]:
        known = {name: options[name] for name in ("family", "triangular", "noise")}
        data = jnp.mean(X, axis=-1), jnp.einsum("bin,bjn->bij", X, X) / count
        objective = functools.partial(loss_of_moments, **known)
    else:
        data, objective = (X,), functools.partial(loss, **options)
    gradient = jax.vmap(jax.grad(objective))
    factors = 1, 1 if options["amortised"] else count

    def body(i, params):
        step = rate * 0.1 ** (i // n).astype(X.dtype)
        parts = zip(params, gradient(params, rotations, *data), factors, strict=True)
        return tuple(
            jax.tree.map(lambda p, g, factor=factor: p - step * factor * g, part, slope)
            for part, slope, factor in parts
        )

    return jax.lax.fori_loop(0, stages * n, body, params)


@functools.partial(
    jax.jit,
    static_argnames=("link", "family", "amortised", "triangular", "noise", "nodes", "fine_nodes"),
)
def _inspect(params, rotations, X, W, Z, *, fine_nodes, **options):
    """Return the bound by two rules, the means, and the curvatures found and true."""
    link, noise = options["link"], options["noise"]
    constant = -math.log(2 * math.pi * noise**2)
    bounds = [
        constant - loss(params, rotations, X, **options | {"nodes": nodes}) / noise**2
        for nodes in (fine_nodes, options["nodes"])
    ]
    A, b = params[0]
    shape = {name: options[name] for name in ("amortised", "triangular")}
    means, D = posteriors(params, rotations, X, **shape)
    variances = _variances(A, D, options["family"])
    curvatures = []
    for j in range(2):
        u = A[j, 0] * means[0] + A[j, 1] * means[1]

        def total(variance, j=j, u=u):
            return jnp.sum(_misfit(link, X[j] - b[j], u, variance, fine_nodes))

        # The derivative by the variance is half the expected second derivative.
        curvatures.append(jax.grad(total)(variances[j] * jnp.ones_like(u)))
    slope = jax.vmap(jax.vmap(jax.grad(LINKS[link])))(W @ Z)
    return bounds, jnp.stack(means), jnp.stack(curvatures), slope**2


def _measure(settings, params, rotations, X, W, Z, options):
    bounds, means, curvatures, true_curvatures = jax.tree.map(
        np.asarray,
        _inspect(params, rotations, X, W, Z, fine_nodes=settings["fine_nodes"], **options),
    )
    names = ["bound", "angle", "offset", "rotation_cost", "expected", "rule_error"]
    if options["link"] == "identity":
        names += ["best", "cost_45"]
    if not (np.isfinite(bounds[0]) and np.isfinite(means).all()):
        return dict.fromkeys(names)  # diverged
    grid = wrap(90 / settings["grid"] * np.arange(settings["grid"]))
    shared = options["amortised"]
    costs = rotation_costs(np.asarray(params[0][0]), curvatures, grid, settings["noise"], shared)
    true_costs = rotation_costs(np.asarray(W), true_curvatures, grid, settings["noise"], shared)
    values = [
        bounds[0],
        procrustes_angle(np.asarray(Z), means),
        wrap(-grid[costs.argmin()]),
        costs[0] - costs.min(),
        grid[true_costs.argmin()],
        abs(bounds[0] - bounds[1]),
    ]
    if options["link"] == "identity":
        values += linear_optimum(np.asarray(X), settings["noise"])
    return {name: round(float(value), 5) for name, value in zip(names, values, strict=True)}


def wrap(degrees):
    """Return angles in (-45, 45], up to multiples of 90."""
    return 45 - np.mod(45 - np.asarray(degrees, float), 90)


def procrustes_angle(Z, M):
    """Return the angle of the orthogonal matrix that takes M nearest to Z, up to signed axes."""
    left, _, right = np.linalg.svd(Z @ M.T)
    first = (left @ right)[:, 0]
    return float(wrap(np.degrees(np.arctan2(first[1], first[0]))))


def rotation_costs(A, curvatures, degrees, noise, shared):
    """Return half the mean of sum_k log P_kk, in nats, for the decoder A R with R of each angle.

    P = I + R^T A^T H A R / noise^2 is a posterior's precision, H the diagonal matrix of the
    curvatures. Up to a constant this is what a diagonal posterior loses to the full one.
    """
    if shared:
        curvatures = curvatures.mean(axis=1, keepdims=True)
    P = np.einsum("jk,jn,jl->kln", A, curvatures, A) / noise**2
    c, s = np.cos(np.radians(degrees))[:, None], np.sin(np.radians(degrees))[:, None]
    first = c**2 * P[0, 0] + 2 * c * s * P[0, 1] + s**2 * P[1, 1]
    second = P[0, 0] + P[1, 1] - first
    # A point's curvature can be negative, where nu bends.
    logs = np.log1p(np.maximum(first, 0)) + np.log1p(np.maximum(second, 0))
    return logs.mean(axis=1) / 2


def linear_optimum(X, noise):
    """Return the best bound of the linear model, and what a rotation by 45 degrees costs it.

    The bound is the likelihood of probabilistic principal components, which a diagonal posterior
    reaches if the decoder's columns are orthogonal. The cost is for a diagonal posterior.
    """
    values = np.linalg.eigvalsh(np.cov(X, bias=True))
    model = np.maximum(values, noise**2)
    best = -np.sum(np.log(2 * np.pi * model) + values / model) / 2
    return best, np.log(np.sum(model) ** 2 / (4 * np.prod(model))) / 2


def summarise(settings, results):
    """Return, for each case, rows for each n, the top runs by bound and the longest runs.

    "gap" is what a run lacks, in nats a point: to the closed-form best bound under the identity,
    else a diagonal run's to the full run of the same data, start and n.
    """
    values = {"uniform_rms": UNIFORM, "cases": {}, "linear_rotation": {}}
    for name, result in results.items():
        columns = {key: np.array(column, float) for key, column in result.items()}
        fine = np.isfinite(columns["bound"])
        gap = _gap(name, columns, results)
        row = {
            "diverged": int(np.sum(~fine)),
            "by_n": {
                str(int(n)): _describe(columns, gap, fine & (columns["n"] == n))
                for n in np.unique(columns["n"])
            },
            "top_by_bound": _describe(columns, gap, _top(columns["bound"], fine, settings["top"])),
            "rank_correlations": {
                "bound, |angle|": _rank_correlation(
                    columns["bound"][fine], abs(columns["angle"][fine])
                ),
                "bound, |offset|": _rank_correlation(
                    columns["bound"][fine], abs(columns["offset"][fine])
                ),
            },
        }
        if "best" in columns:
            row["top_by_gap"] = _describe(columns, gap, _top(-gap, fine, settings["top"]))
            row["smallest_gap"] = float(np.min(gap[fine]))
        if gap is not None:
            # Short runs differ in more than the rotation.
            known = np.isfinite(gap) & (columns["n"] == columns["n"].max())
            for angle in ("angle", "offset"):
                row["rank_correlations"][f"gap, |{angle}|, longest"] = _rank_correlation(
                    gap[known], abs(columns[angle][known])
                )
        values["cases"][name] = row
    linear = np.array(results["amortised, identity, diagonal"]["cost_45"], float)
    linear = linear[np.isfinite(linear)]
    for degrees in (0, 5, 15, 30, 45):
        excess = (np.exp(2 * linear) - 1) * np.sin(np.radians(2 * degrees)) ** 2
        costs = np.log1p(excess) / 2
        values["linear_rotation"][str(degrees)] = {
            "mean": float(costs.mean()),
            "median": float(np.median(costs)),
            "least": float(costs.min()),
        }
    return values


def _gap(name, columns, results):
    if "best" in columns:
        return columns["best"] - columns["bound"]
    partner = name.replace("diagonal", "full")
    if partner == name or partner not in results:
        return None
    return np.array(results[partner]["bound"], float) - columns["bound"]


def _top(score, among, part):
    chosen = np.flatnonzero(among)
    order = chosen[np.argsort(-score[chosen], kind="stable")]
    return order[: math.ceil(part * len(order))]


def _describe(columns, gap, chosen):
    one = {name: column[chosen] for name, column in columns.items()}
    if not len(one["n"]):
        return {"runs": 0}
    found = {
        "runs": len(one["n"]),
        "median_bound": float(np.median(one["bound"])),
        "rms_angle": _rms(one["angle"]),
        "rms_offset": _rms(one["offset"]),
        "median_abs_offset": float(np.median(abs(one["offset"]))),
        "rms_expected": _rms(one["expected"]),
        "rms_angle_less_expected": _rms(wrap(one["angle"] - one["expected"])),
        "median_rotation_cost": float(np.median(one["rotation_cost"])),
        "largest_rule_error": float(np.max(one["rule_error"])),
    }
    if gap is not None:
        gaps = gap[chosen][np.isfinite(gap[chosen])]
        found["median_gap"] = float(np.median(gaps)) if len(gaps) else None
    return found


def _rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def _rank_correlation(a, b):
    ranks = [np.argsort(np.argsort(values)) for values in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])
