"""What must not matter does not matter, for any jet; and the kernels say what the tensors say."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from jet_anomaly.core.kernels import kernels, numba_works
from jet_anomaly.jet.align import algorithm_1, centre_and_rotate
from jet_anomaly.jet.kinematics import boost_z, eta, from_pt_eta_phi, jet_p4, mass, pt, rotate_z
from jet_anomaly.jet.substructure import energy_correlation, n_subjettiness
from jet_anomaly.jet.tree import soft_drop
from jet_anomaly.represent.images import jet_images
from jet_anomaly.represent.sequences import log_pt_eta_phi, relative_pt_eta_phi

quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much]
)


@st.composite
def samples(draw):
    "A few jets of one kind, in double precision, sorted by pT: (p4, mask)."
    kind = draw(st.sampled_from(["one", "two", "few", "many", "collinear", "no energy", "200"]))
    g = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    low, high = {"one": (1, 1), "two": (2, 2), "few": (3, 6), "200": (200, 200)}.get(kind, (10, 60))
    counts, width = g.integers(low, high + 1, 6), high + draw(st.integers(0, 3))
    mask = np.arange(width) < counts[:, None]
    prongs, spread = g.normal(0, 0.3, (6, 3, 2)), draw(st.sampled_from([0.01, 0.1, 0.3]))
    at = np.take_along_axis(prongs, g.integers(3, size=(6, width))[..., None], 1) + g.normal(
        0, spread, (6, width, 2)
    )
    if kind == "collinear":
        at[:] = at[:, :1]
    momenta = np.where(mask, g.exponential(1, (6, width)) ** 2 + 1e-3, 0)
    momenta = -np.sort(-momenta / momenta.sum(1, keepdims=True) * 600, 1)
    if kind == "no energy":
        momenta[:, 4:8] = 0
    p4 = from_pt_eta_phi(
        momenta, at[..., 0] + g.uniform(-2, 2, (6, 1)), at[..., 1] + g.uniform(-3, 3, (6, 1))
    )
    return p4, mask


moves = st.tuples(st.floats(-2, 2), st.floats(-7, 7), st.booleans(), st.booleans())


def moved(p4, move):
    y, angle, flip_y, flip_z = move
    return rotate_z(boost_z(p4, y) * [1, 1, 1 - 2 * flip_y, 1 - 2 * flip_z], angle)


def settled(p4, mask):
    "Jets of which the last digit does not decide: no mass or hardly any, a constituent at ΔR = 1 or two equal choices are left out."
    m = mass(jet_p4(p4)) / jet_p4(p4)[:, 0]
    shaken = p4 * (1 + 1e-9 * np.random.default_rng(0).normal(size=p4.shape[:2]))[..., None]
    (x, kept), (x2, kept2) = algorithm_1(p4, mask), algorithm_1(shaken, mask)
    return (m > 1e-5) & (kept == kept2).all(1) & (np.abs(x - x2).max((1, 2)) < 1e-5), x, kept


@quick
@given(samples(), moves)
def test_algorithm_1_is_blind_to_place_and_mirrors(sample, move):
    p4, mask = sample
    good, x, kept = settled(p4, mask)
    y, kept2 = algorithm_1(moved(p4, move), mask)
    assert (kept[good] == kept2[good]).all()
    np.testing.assert_allclose(y[good], x[good], atol=2e-5)


@quick
@given(samples())
def test_algorithm_1_keeps_what_it_promises(sample):
    p4, mask = sample
    x, kept = algorithm_1(p4, mask)
    assert (
        np.isfinite(x).all()
        and (x[~kept] == 0).all()
        and (np.hypot(x[..., 1], x[..., 2]) < 1).all()
    )
    assert ((kept.sum(1) == 0) | (kept.sum(1) >= 3)).all() and (
        np.diff(kept.astype(int), axis=1) <= 0
    ).all()
    some = kept.any(1) & (mass(jet_p4(p4)) > 1e-4 * jet_p4(p4)[:, 0])
    total = jet_p4(from_pt_eta_phi(*np.moveaxis(x[some], -1, 0)) * kept[some][..., None])
    np.testing.assert_allclose(mass(total) / total[:, 0], 0.25, atol=1e-6)


@quick
@given(samples(), moves, st.randoms(use_true_random=False))
def test_order_and_padding_do_not_matter(sample, move, random):
    p4, mask = sample
    good, x, kept = settled(p4, mask)
    order = list(range(p4.shape[1]))
    random.shuffle(order)
    other, real = (
        np.pad(p4[:, order], ((0, 0), (0, 7), (0, 0))),
        np.pad(mask[:, order], ((0, 0), (0, 7))),
    )
    y, kept2 = algorithm_1(other, real)
    assert (kept[good] == kept2[good]).all()
    np.testing.assert_allclose(y[good], x[good], atol=2e-5)


@quick
@given(samples(), moves)
def test_centring_and_sequences_are_blind_to_place(sample, move):
    p4, mask = sample
    assume(not (move[2] or move[3]))
    a, b = centre_and_rotate(p4, mask), centre_and_rotate(moved(p4, move), mask)
    wide = np.abs(eta(a)).max(1) > 1e-6  # a jet of one direction has nothing to turn to
    np.testing.assert_allclose(b[wide] / 600, a[wide] / 600, atol=1e-6)
    for f in log_pt_eta_phi, relative_pt_eta_phi:
        np.testing.assert_allclose(f(moved(p4, move), mask)[0], f(p4, mask)[0], atol=1e-6)


@quick
@given(samples())
def test_images_hold_all_that_lies_inside(sample):
    p4, mask = sample
    np.testing.assert_allclose(
        jet_images(p4, mask, extent=9.0, normalise=False).sum((1, 2)), pt(p4).sum(1), rtol=1e-6
    )
    np.testing.assert_allclose(jet_images(p4, mask, extent=9.0).sum((1, 2)), 1, atol=1e-6)


with_numba = pytest.mark.skipif(not numba_works(), reason="numba is missing")


@with_numba
@quick
@given(samples())
def test_kernels_say_what_tensors_say(sample):
    good, *_ = settled(*sample)
    p4, mask = torch.from_numpy(sample[0].astype(np.float32)), torch.from_numpy(sample[1])
    functions = {
        "centre": centre_and_rotate,
        "align": algorithm_1,
        "tau": n_subjettiness,
        "soft drop": lambda p, m: mass(soft_drop(p, m)[0]) / 600,
        "e3": lambda p, m: energy_correlation(p, m, 3),
    }
    answers = []
    for switch in True, False:
        with kernels(switch):
            answers.append({k: f(p4, mask) for k, f in functions.items()})
    fast, slow = answers
    for k in "tau", "soft drop", "e3":
        torch.testing.assert_close(fast[k], slow[k], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(fast["centre"] / 600, slow["centre"] / 600, atol=2e-5, rtol=0)
    (x, kept), (x2, kept2) = fast["align"], slow["align"]
    same = (kept == kept2).all(1) & ((x - x2).abs().amax((1, 2)) < 1e-3)
    assert (
        same[torch.from_numpy(good)].float().mean().nan_to_num(1) >= 0.8
    )  # one of six may lie on an edge of single precision
