"""Tests of symlib.autoencoders on surfaces whose geodesics are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from symlib.autoencoders import curvature, curve_length, geodesic, metric, optimal_covariance


def sphere(z):
    """Return the point of the unit sphere at a longitude and a latitude."""
    longitude, latitude = z
    return jnp.array(
        [
            jnp.cos(latitude) * jnp.cos(longitude),
            jnp.cos(latitude) * jnp.sin(longitude),
            jnp.sin(latitude),
        ]
    )


def cylinder(z):
    return jnp.array([jnp.cos(z[0]), jnp.sin(z[0]), z[1]])


def test_the_metric_of_the_sphere(dtype, tolerance):
    z = jnp.array([0.3, 0.8], dtype)
    expected = np.diag([np.cos(0.8) ** 2, 1])
    assert_allclose(metric(sphere, z), expected, atol=tolerance(dtype))


def test_the_best_covariance_knows_the_metric(x64):
    z, beta = jnp.array([0.3, 0.8]), 0.4
    covariance = optimal_covariance(curvature(sphere, jnp.zeros(3), z), beta)
    found = beta * (np.linalg.inv(covariance) - np.eye(2))
    assert_allclose(found, metric(sphere, z), atol=1e-12)


def test_the_geodesic_of_the_sphere_is_a_great_circle(x64):
    start, end = jnp.array([0.0, 1.0]), jnp.array([2.0, 1.0])
    path = geodesic(sphere, start, end, num_points=65)
    assert_allclose(path[0], start) and assert_allclose(path[-1], end)
    angle = jnp.arccos(sphere(start) @ sphere(end))
    # Chords shorten an arc of angle a, cut in n, by about a^3 / (24 n^2).
    assert_allclose(curve_length(sphere, path), angle, rtol=1e-4)
    chords = jnp.linalg.norm(jnp.diff(jax.vmap(sphere)(path), axis=0), axis=1)
    assert_allclose(chords, chords[0], rtol=1e-3)
    line = start + jnp.linspace(0, 1, 65)[:, None] * (end - start)
    assert curve_length(sphere, line) > curve_length(sphere, path) + 0.1
    assert path[32, 1] > 1.2  # it leaves the parallel towards the pole


def test_a_flat_surface_keeps_its_straight_lines(dtype):
    start, end = jnp.array([0.0, 0.0], dtype), jnp.array([1.5, 2.0], dtype)
    path = geodesic(cylinder, start, end, num_points=17, steps=30)
    line = start + jnp.linspace(0, 1, 17, dtype=dtype)[:, None] * (end - start)
    assert path.dtype == dtype
    assert_allclose(path, line, atol=2e-3 if dtype == jnp.float32 else 1e-6)
    assert_allclose(curve_length(cylinder, path), 2.5, rtol=1e-3)


def test_wrong_input_is_named():
    vector = jnp.ones(2)
    wrong = [
        (lambda: metric(sphere, jnp.ones((1, 2))), "z has to be a vector"),
        (lambda: curve_length(sphere, vector), r"expected a curve \(points, d\)"),
        (lambda: geodesic(sphere, vector, jnp.ones(3)), "vectors of one length"),
        (lambda: geodesic(sphere, vector, vector, num_points=2), "at least 3"),
        (lambda: geodesic(sphere, vector, vector, steps=0), "steps"),
    ]
    for call, message in wrong:
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(ValueError, match="NaN or infinite"):
        jax.block_until_ready(geodesic(lambda z: jnp.log(z), -vector, vector, steps=2))
