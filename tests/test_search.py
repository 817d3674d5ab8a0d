"""The search: fits against scikit-learn and SciPy, p-values against exact sums, limits against pyhf, bad input."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from sklearn.linear_model import PoissonRegressor

from jet_anomaly.search.background import (
    FAILED,
    choose_parameters,
    deviance,
    dijet_terms,
    fit_spectrum,
    fit_toys,
    likelihood,
    make_grid,
)
from jet_anomaly.search.bump import (
    bump_hunt,
    default_edges,
    global_p,
    hunt_counts,
    signal_template,
    upcrossings,
)
from jet_anomaly.search.counting import on_off_p, poisson_p, sideband_p
from jet_anomaly.search.limits import cls, pyhf_workspace, upper_limit
from jet_anomaly.search.spectrum import blind, make_folds, select

EDGES = np.linspace(2300, 6800, 51)
CENTRES = (EDGES[1:] + EDGES[:-1]) / 2


def smooth(events):
    f = np.exp(dijet_terms(CENTRES) @ (0, 10.0, 5.5))
    return events * f / f.sum()


def masses(events, seed=0):
    grid = np.linspace(2300, 6800, 4001)
    total = np.cumsum(np.exp(dijet_terms(grid) @ (0, 10.0, 5.5)))
    return np.interp(np.random.default_rng(seed).random(events), total / total[-1], grid)


@given(st.integers(0, 60), st.floats(0.01, 60))
def test_poisson_sums(n, b):
    assert poisson_p(n, b) == pytest.approx(stats.poisson.sf(n - 1, b), rel=1e-9, abs=1e-300)


@given(st.integers(0, 40), st.integers(0, 200), st.floats(0.2, 10))
def test_on_off_is_a_binomial_sum(on, off, tau):
    expected = stats.binom.sf(on - 1, on + off, 1 / (1 + tau))
    assert on_off_p(on, off, tau) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_the_sideband_test_holds_its_level():
    rng = np.random.default_rng(0)
    p = sideband_p(
        *rng.binomial([[400], [0], [3000], [0]], [[0.05], [0], [0.05], [0]], (4, 2000)).clip(0)
    )
    assert (p <= 0.05).mean() < 0.07
    tables = rng.binomial(500, 0.1, 2000), rng.binomial(5000, 0.1, 2000)
    p = sideband_p(tables[0], 500 - tables[0], tables[1], 5000 - tables[1])
    assert 0.02 < (p <= 0.05).mean() < 0.06  # discrete, so a little conservative


@pytest.mark.parametrize("events", [3e3, 1e5, 1e6])
@pytest.mark.parametrize("n", [3, 4, 5])
def test_fit_agrees_with_poisson_regression(events, n):
    counts = np.random.default_rng(n).poisson(smooth(events)).astype(float)
    grid = make_grid(EDGES, counts, n)
    grid = grid._replace(nodes=grid.nodes[:, 1:2], weights=np.diff(EDGES)[:, None])
    ours = fit_spectrum(counts, grid)
    x, width = grid.nodes[:, 0] * np.sqrt(events), np.diff(EDGES)
    other = PoissonRegressor(
        alpha=0, fit_intercept=False, solver="newton-cholesky", tol=1e-12, max_iter=5000
    )
    theirs = deviance(counts, other.fit(x, counts / width, sample_weight=width).predict(x) * width)
    assert ours.valid and ours.deviance == pytest.approx(theirs, rel=1e-8)


# 50 bins of EDGES, drawn once: 30,000 background events and 160 of a signal of 3.5 TeV, 4 % wide.
COUNTS = np.array(
    [
        7200,
        5250,
        4056,
        3125,
        2273,
        1728,
        1384,
        1045,
        888,
        644,
        478,
        428,
        352,
        253,
        230,
        184,
        122,
        103,
        81,
        78,
    ]
    + [
        54,
        43,
        29,
        19,
        16,
        18,
        7,
        13,
        7,
        5,
        7,
        8,
        3,
        4,
        4,
        3,
        2,
        2,
        1,
        2,
        2,
        0,
        1,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ]
)
# zfit 0.28.0: BinnedFromUnbinnedPDF of a ZPDF (dijet, 3 parameters) and a Gauss, ExtendedBinnedNLL, Minuit
ZFIT = dict(z=2.853878, signal=129.8691, parameters=(9.68328, 5.52527))


def test_fit_agrees_with_zfit():
    template = signal_template(EDGES, 3500, 0.04)
    grid = make_grid(EDGES, COUNTS)
    without = fit_spectrum(COUNTS, grid)
    found = fit_spectrum(COUNTS, grid, template, without.theta)
    assert np.sqrt(2 * (without.nll - found.nll)) == pytest.approx(ZFIT["z"], abs=2e-6)
    assert found.signal == pytest.approx(ZFIT["signal"], abs=0.01)
    assert found.parameters[1:] == pytest.approx(ZFIT["parameters"], abs=1e-4)


def test_fit_agrees_with_another_minimiser():
    counts = np.random.default_rng(3).poisson(smooth(2e4) + 60 * signal_template(EDGES, 3500, 0.04))
    grid, template = make_grid(EDGES, counts), signal_template(EDGES, 3500, 0.04)
    ours = fit_spectrum(counts, grid, template)
    start = np.append(ours.theta * 1.02, 0.0)
    cost = lambda v: likelihood(counts, grid.expected(v[:-1]) + v[-1] * template)  # noqa: E731
    theirs = optimize.minimize(cost, start, method="BFGS", options=dict(gtol=1e-3))
    assert ours.nll == pytest.approx(theirs.fun, abs=1e-3)
    assert ours.signal == pytest.approx(theirs.x[-1], abs=0.05 * ours.signal_error)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([500, 5_000, 200_000]))
def test_fast_fits_agree_with_minuit(seed, events):
    counts = np.random.default_rng(seed).poisson(smooth(events)).astype(float)
    grid, template = make_grid(EDGES, counts), signal_template(EDGES, 3000, 0.04)
    without = fit_spectrum(counts, grid)
    found = fit_spectrum(counts, grid, template, without.theta)
    z = np.sign(found.signal) * np.sqrt(2 * max(without.nll - found.nll, 0))
    *_, fast, status = fit_toys(
        counts[None], grid.nodes, grid.weights, template[None], without.theta
    )
    assert (status != FAILED).all()
    if z > -1:  # a deficit may end at the edge of what can be taken away
        assert fast[0, 0] == pytest.approx(z, abs=0.02)


def test_parameters_in_another_basis_are_the_same_function():
    counts = np.random.default_rng(0).poisson(smooth(1e5))
    fit = fit_spectrum(counts, make_grid(EDGES, counts))
    at_centre = np.exp(dijet_terms(CENTRES) @ fit.parameters) * np.diff(EDGES)
    assert at_centre == pytest.approx(fit.background, rel=5e-3)
    assert choose_parameters(counts, EDGES)[0] == 3


def test_upcrossings_of_known_curves():
    curve = np.array([[0, 2, 0, 2, 0], [2, 2, 2, 2, 2], [0, 0, 0, 0, 2]], float)
    assert upcrossings(curve) == pytest.approx(1)
    p, method = global_p(2.5, curve[:, None])
    assert (p, method) == (0.25, "toys")
    p, method = global_p(5.0, curve[:, None])
    assert method == "upcrossings"
    assert p == pytest.approx(stats.norm.sf(5) + np.exp((1 - 25) / 2))


def test_a_hunt_is_the_same_twice_and_with_an_executor():
    from concurrent.futures import ThreadPoolExecutor

    m = masses(5_000)
    settings_ = dict(edges=EDGES, toys=50, hypotheses=np.linspace(2800, 4500, 6))
    with ThreadPoolExecutor(2) as pool:
        runs = [
            bump_hunt(m, **settings_),
            bump_hunt(m, **settings_),
            bump_hunt(m, **settings_, executor=pool),
        ]
    for other in runs[1:]:
        assert json.dumps(other.summary()) == json.dumps(runs[0].summary())


def test_a_sliding_window_finds_the_same_signal():
    counts = np.round(smooth(1e5) + 400 * signal_template(EDGES, 3800, 0.04))
    both = [
        hunt_counts(counts, EDGES, window=w, toys=20, parameters=3).summary() for w in (None, 0.3)
    ]
    for found in both:
        assert abs(found["mass"] - 3800) < 200 and found["z_local"] > 3


def test_limits_agree_with_pyhf():
    import pyhf

    counts = np.random.default_rng(5).poisson(smooth(3e4))
    ours = upper_limit(counts, EDGES, 3500)
    workspace = pyhf.Workspace(pyhf_workspace(counts, EDGES, 3500))
    model = workspace.model()
    observed, expected = pyhf.infer.intervals.upper_limits.upper_limit(workspace.data(model), model)
    assert observed * ours.expected[2] == pytest.approx(ours.observed, rel=0.01)
    assert np.array(expected) * ours.expected[2] == pytest.approx(ours.expected, rel=0.01)


def test_cls_of_gaussian_numbers():
    # q and Asimov value of a measurement of 0 ± 1 and of an expected 0: CLs = 2 × tail
    assert cls(1.96**2, 1.96**2) == pytest.approx(0.05, abs=1e-4)


def test_blinding_looks_at_nothing_inside():
    counts = np.random.default_rng(1).poisson(smooth(3e4))
    inside = (EDGES[1:] > 3000) & (EDGES[:-1] < 4000)
    other = np.where(inside, 7, counts)
    assert blind(counts, EDGES, (3000, 4000)) == pytest.approx(blind(other, EDGES, (3000, 4000)))


def test_thresholds_do_not_know_their_own_fold():
    m, folds = masses(20_000), make_folds(20_000)
    scores = np.random.default_rng(0).normal(size=20_000)
    raised = np.where(folds == 1, scores + 50, scores)
    assert select(m, raised, 0.1, folds)[1][1] == pytest.approx(select(m, scores, 0.1, folds)[1][1])
    assert np.bincount(folds).tolist() == [4_000] * 5


M = masses(2_000)
RISING = np.random.default_rng(0).normal(3500, 300, 5_000)
BAD = {
    "NaN": (lambda: bump_hunt(np.append(M, np.nan)), "1 of 2001 masses"),
    "negative": (lambda: bump_hunt(np.append(M, -1)), "1 of 2001 masses"),
    "ten events": (lambda: bump_hunt(M[:10]), "10 events"),
    "turn-on": (lambda: bump_hunt(RISING, EDGES), "turn-on"),
    "empty bins": (lambda: hunt_counts(np.r_[500, np.zeros(49)], EDGES), "Only 1 of 50 bins"),
    "no events": (lambda: hunt_counts(np.zeros(50), EDGES), "0 events in range"),
    "weights": (lambda: bump_hunt(M, weights=np.full(2_000, 2.0)), "Weighted events"),
    "outside": (lambda: bump_hunt(M, EDGES, hypotheses=[9_000]), "outside the spectrum"),
    "wide": (lambda: bump_hunt(M, EDGES, widths=0.4, hypotheses=[4_000]), "too wide"),
    "wider than the window": (lambda: bump_hunt(M, EDGES, widths=0.2, window=0.2), "too wide"),
    "edges": (lambda: hunt_counts(np.ones(50), EDGES[::-1]), "rising edges"),
    "energy": (lambda: dijet_terms([14_000]), "energy of the collisions"),
    "window": (lambda: blind(np.ones(50), EDGES, (1_000, 9_000)), "sidebands"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told(case):
    call, said = BAD[case]
    with pytest.raises(ValueError, match=said):
        call()


def test_events_outside_the_edges_are_counted_and_told():
    with pytest.warns(UserWarning, match="below and"):
        hunt = bump_hunt(np.append(M, [1000.0, 9000.0]), EDGES, toys=20, parameters=3)
    assert (hunt.below, hunt.above) == (1, 1) and hunt.counts.sum() == len(M)


def test_default_edges_hold_the_tail():
    edges = default_edges(M)
    assert edges[-1] > M.max() and edges[0] < np.quantile(M, 0.3)


def test_public_features_go_through_the_same_command(tmp_path, capsys):
    from jet_anomaly.cli.main import main
    from jet_anomaly.data.read import read
    from jet_anomaly.data.toys import toy_lhco_features
    from jet_anomaly.search.weak import event_features

    raw, jets = toy_lhco_features(tmp_path / "features.h5", events=4_000), tmp_path / "jets.h5"
    assert main(["read", "lhco_features", str(raw), "--out", str(jets), "--quiet"]) == 0
    have = read(raw, progress=False).observables
    mass, x = event_features(have)
    assert mass == pytest.approx(have["mjj"][have["rank"] == 0], rel=1e-4)
    assert x[:, 2] == pytest.approx(0.5, abs=1e-6)  # τ2 / τ1 of the file
    run = ["search", str(jets), "--out", str(tmp_path / "out"), "--range", "3000", "6500"]
    run += ["--keep", "0.2", "--toys", "20", "--window", "3600", "4200", "--quiet"]
    assert main([*run, "--weak", "cwola"]) == 0
    said = json.loads((tmp_path / "out" / "search.json").read_text())
    inside = int(((mass >= 3000) & (mass < 6500)).sum())
    assert said["cut_flow"] == pytest.approx(
        {"all events": 4_000, "inside the edges": inside, "most anomalous 0.2": 0.2 * inside},
        rel=0.1,
    )
    assert not said["opened"]
    capsys.readouterr()
    assert main(run) == 1 and "--weak for a file of jets" in capsys.readouterr().err
    assert main(["search", str(jets), "--out", "x", "--weak", "cwola"]) == 1
    assert "--window LOW HIGH" in capsys.readouterr().err


def test_a_search_in_processes_is_the_same(tmp_path):
    from jet_anomaly.search.report import write_search

    m, rng = masses(5_000), np.random.default_rng(0)
    own = dict(edges=EDGES, keep=(0.2,), toys=40, unblind=True)
    scores = rng.normal(size=len(m))
    one = write_search(tmp_path / "one", m, scores, **own)
    two = write_search(tmp_path / "two", m, scores, **own, processes=2)
    assert json.dumps(one["points"]) == json.dumps(two["points"])


def test_a_search_goes_on_within_the_toys_of_a_working_point(tmp_path, monkeypatch):
    from jet_anomaly.search import bump, report, toys

    m, made = masses(5_000), []
    scores, scan = np.random.default_rng(0).normal(size=len(m)), bump.scan_toys
    own = dict(edges=EDGES, keep=(0.2,), toys=48, unblind=True)
    whole = report.write_search(tmp_path / "whole", m, scores, **own)
    keep = toys.save_arrays

    def interrupted(path, arrays, *args, **kwargs):
        keep(path, arrays, *args, **kwargs)
        made.append(len(arrays["result"]))
        if len(made) == 20:  # in the second working point
            raise KeyboardInterrupt

    monkeypatch.setattr(toys, "save_arrays", interrupted)
    with pytest.raises(KeyboardInterrupt):
        report.write_search(tmp_path / "again", m, scores, **own)
    parts = sorted((tmp_path / "again" / "points").rglob("part-*"))
    assert len(parts) == 4 and sum(made) == 60
    monkeypatch.setattr(toys, "save_arrays", keep)
    done = []
    monkeypatch.setattr(
        bump, "scan_toys", lambda c, *a, **k: done.append(len(c)) or scan(c, *a, **k)
    )
    again = report.write_search(tmp_path / "again", m, scores, **own)
    assert sum(n for n in done if n == 3) == 36  # the other twelve toys are not fitted again
    assert json.dumps(again["points"]) == json.dumps(whole["points"])
    assert not list((tmp_path / "again").rglob("part-*"))
