"""Metrics, decorrelation, calibration and the report against independent implementations."""

import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import kstest, spearmanr
from sklearn import metrics as sk

from jet_anomaly.evaluate.calibrate import Calibration
from jet_anomaly.evaluate.columns import by_label, effective_size
from jet_anomaly.evaluate.decorrelation import (
    MassDecorrelated,
    decorrelate,
    distance_correlation,
    jensen_shannon,
    jsd_floor,
    mass_jsd,
    mean_profile,
    passing,
    planing_weights,
    spearman,
)
from jet_anomaly.evaluate.metrics import (
    GROUPS,
    Sweep,
    auc,
    bootstrap,
    efficiency_at,
    match_spectrum,
    max_sic,
    paired_bootstrap,
    rejection,
    replicas,
    roc,
    seed_band,
    sic,
    sic_efficiency,
)
from jet_anomaly.evaluate.report import write_report
from jet_anomaly.evaluate.results import Sample, evaluate, score_of

few = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def jets(draw, exact=True):
    "Scores of two classes, often with ties, and weights, some of them zero; `exact` ones sum without rounding."
    rng, tied = np.random.default_rng(draw(seeds)), draw(st.booleans())

    def column(n):
        return rng.integers(-3, 4, n).astype(float) if tied else rng.normal(size=n)

    def weights(n):
        return rng.integers(0, 4, n) + (np.arange(n) == 0) if exact else rng.exponential(size=n)

    n, m = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    return column(n), column(m), weights(n), weights(m)


@few
@given(jets(exact=False))
def test_curves_equal_scikit_learn(sample):
    b, s, w, v = sample
    labels, scores, weights = np.repeat([0, 1], [len(b), len(s)]), np.r_[b, s], np.r_[w, v]
    fpr, tpr, threshold = sk.roc_curve(
        labels, scores, sample_weight=weights, drop_intermediate=False
    )
    ours = roc(b, s, w, v)
    for mine, theirs in zip(ours, (fpr, tpr, threshold)):
        np.testing.assert_allclose(mine, theirs, atol=1e-12)
    np.testing.assert_allclose(
        auc(b, s, w, v), sk.roc_auc_score(labels, scores, sample_weight=weights), atol=1e-12
    )
    np.testing.assert_allclose(auc(b, s), sk.roc_auc_score(labels, scores), atol=1e-12)


@few
@given(jets())
def test_working_points_are_what_a_cut_gives(sample):
    b, s, w, v = sample
    for cut in np.unique(np.r_[b, s]):
        e_b, e_s = w[b >= cut].sum() / w.sum(), v[s >= cut].sum() / v.sum()
        assert efficiency_at(b, s, w, v, at=min(e_b, 1)) >= e_s - 1e-9
        assert 1 / rejection(b, s, w, v, at=min(e_s, 1)) <= max(e_b, 1 / effective_size(w)) + 1e-9


@few
@given(jets(), st.sampled_from([0.25, 2, 8]))
def test_what_metrics_do_not_see(sample, scale):
    b, s, w, v = sample

    def every(*a):
        return np.r_[
            auc(*a),
            rejection(*a, at=[0.2, 0.5]),
            efficiency_at(*a, at=[0.1, 0.5]),
            max_sic(*a, floor=0.2),
            sic_efficiency(*a, floor=0.2),
        ]

    np.testing.assert_allclose(
        every(np.arctan(b / 50), np.arctan(s / 50), scale * w, v), every(b, s, w, v), atol=1e-9
    )
    order = np.random.default_rng(0).permutation(len(b))
    np.testing.assert_allclose(every(b[order], s, w[order], v), every(b, s, w, v), atol=1e-9)
    np.testing.assert_allclose(auc(s, b, v, w), 1 - auc(b, s, w, v), atol=1e-9)


@few
@given(jets())
def test_integer_weights_are_copies(sample):
    b, s, copies, _ = sample
    curve, repeated = roc(b, s, copies), roc(np.repeat(b, copies), s)
    np.testing.assert_allclose(auc(curve), auc(repeated), atol=1e-12)
    np.testing.assert_allclose(max_sic(curve, floor=0.3), max_sic(repeated, floor=0.3), atol=1e-9)


def test_tensors_in_tensors_out():
    b, s = torch.randn(50), torch.randn(30) + 1
    curve = roc(b, s)
    assert all(isinstance(x, torch.Tensor) for x in curve) and all(
        isinstance(x, torch.Tensor) for x in sic(b, s)
    )
    assert auc(b, s) == auc(b.numpy(), s.numpy()) == auc(curve) and isinstance(auc(b, s), float)
    assert isinstance(match_spectrum(b, s, 3), torch.Tensor)
    assert auc(*by_label(torch.tensor([0, 1, 0, 1]), torch.tensor([1.0, 2, 3, 4]))) == 0.75
    assert auc(b.requires_grad_(), s) == auc(curve)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, bool, np.float16, np.float32, np.int64])
def test_any_kind_of_number(dtype):
    b, s = np.array([0, 1, 1, 0]).astype(dtype), np.array([1, 1, 0]).astype(dtype)
    assert auc(b, s) == pytest.approx(
        sk.roc_auc_score([0] * 4 + [1] * 3, np.r_[b, s].astype(float))
    )


def test_infinite_scores_are_ranks_like_others():
    assert auc([-np.inf, 0, 1], [np.inf, 2]) == 1


def test_the_bootstrap_of_very_many_jets_draws_groups():
    rng = np.random.default_rng(0)
    n = 2 * GROUPS + 17
    b, s = rng.normal(size=n), rng.normal(1, 1, n)
    v = np.searchsorted(np.sort(b), s) / n
    u = 1 - np.searchsorted(np.sort(s), b) / n
    exact = np.sqrt(v.var() / n + u.var() / n)  # DeLong, DeLong and Clarke-Pearson 1988
    drawn = replicas(auc, b, s, n=150, seed=1)
    assert abs(drawn.std() / exact - 1) < 4 / np.sqrt(300)
    assert abs(drawn.mean() - auc(b, s)) < 4 * exact / np.sqrt(150)


def test_bands_repeat_and_pairs_share_their_jets():
    rng = np.random.default_rng(0)
    b, s = rng.normal(size=400), rng.normal(1, 1, 300)
    assert (
        bootstrap(auc, b, s, n=20, seed=3)
        == bootstrap(auc, b, s, n=20, seed=3)
        != bootstrap(auc, b, s, n=20, seed=4)
    )
    other = b + rng.normal(0, 0.1, 400), s + rng.normal(0, 0.1, 300)
    alone, pair = bootstrap(auc, b, s, n=100), paired_bootstrap(auc, (b, s), other, n=100)
    assert pair.high - pair.low < 0.3 * (alone.high - alone.low)
    assert tuple(paired_bootstrap(auc, (b, s), (np.exp(b), np.exp(s)), n=10)) == (0, 0, 0)
    with pytest.raises(ValueError, match="same jets"):
        paired_bootstrap(auc, (b, s), (b[1:], s))
    assert seed_band([1.0, 2, 3]).value == 2
    with pytest.raises(ValueError, match="at least one"):
        seed_band([])


@few
@given(seeds, st.integers(1, 6))
def test_matched_spectra_are_equal(seed, bins):
    values = np.random.default_rng(seed).beta(0.5, 2, 40)
    reference = np.linspace(0, 1, 50) ** 2
    edges = np.linspace(0, 1, bins + 1)
    w = match_spectrum(reference, values, edges)
    have = np.histogram(values, edges)[0] > 0
    wanted = np.histogram(reference, edges)[0] * have
    np.testing.assert_allclose(
        np.histogram(values, edges, weights=w)[0] / len(values), wanted / wanted.sum(), atol=1e-12
    )
    assert (w >= 0).all() and effective_size(w) <= len(w) + 1e-9


@few
@given(st.integers(2, 60), seeds, st.booleans())
def test_distance_correlation_equals_dcor(dcor, n, seed, ties):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    y = x**2 + rng.normal(size=n)
    if ties:
        x, y = np.round(x), np.round(y)
    ours = distance_correlation(1e3 * x + 1e4, y)
    np.testing.assert_allclose(
        ours,
        dcor.distance_correlation(x, y, method="naive") if np.ptp(x) and np.ptp(y) else 0,
        atol=1e-7,
    )
    copies = rng.integers(1, 4, n)
    np.testing.assert_allclose(
        distance_correlation(x, y, copies),
        distance_correlation(np.repeat(x, copies), np.repeat(y, copies)),
        atol=1e-7,
    )


@few
@given(st.integers(3, 60), seeds)
def test_rank_correlation_equals_scipy(n, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 5, n), rng.normal(size=n).round(1)
    expected = spearmanr(x, y).statistic if np.ptp(x) and np.ptp(y) else 0
    np.testing.assert_allclose(spearman(x, y), expected, atol=1e-12)


@few
@given(seeds)
def test_divergence_equals_scipy(seed):
    p, q = np.random.default_rng(seed).integers(0, 4, (2, 7)) + np.eye(7)[:2]
    np.testing.assert_allclose(jensen_shannon(p, q), jensenshannon(p, q, base=2) ** 2, atol=1e-10)


@few
@given(jets(), st.floats(0.01, 1))
def test_a_cut_keeps_what_it_was_asked_to(sample, at):
    b, _, w, _ = sample
    kept = passing(b, at, w)
    np.testing.assert_allclose(kept.sum(), at * w.sum(), rtol=1e-9)
    assert (kept <= w + 1e-12).all() and (
        kept[b == b.max()].sum() > 0 or w[b == b.max()].sum() == 0
    )


def background(n, seed):
    rng = np.random.default_rng(seed)
    mass = 20 + rng.gamma(2.0, 35, n)
    return 2 * np.log(mass) + rng.normal(size=n), mass


def test_a_rank_at_fixed_mass():
    d = MassDecorrelated(300).fit(*background(4000, 0))
    score, mass = background(4000, 1)
    z = d.transform(score, mass)
    np.testing.assert_allclose(d.transform(score, mass, block=17), z)  # blocks do not matter
    np.testing.assert_allclose(d.transform(score[::-1], mass[::-1])[::-1], z)
    assert isinstance(d.transform(torch.tensor(score), torch.tensor(mass)), torch.Tensor)
    assert (d.transform(score + 1, mass) >= z).all()  # rises with the score at fixed mass
    order = np.random.default_rng(2).permutation(4000)
    other = MassDecorrelated(300).fit(*(a[order] for a in background(4000, 0)))
    np.testing.assert_allclose(other.transform(score, mass), z, atol=1e-9)
    assert kstest(z, "norm").pvalue > 1e-4 and abs(spearman(z, mass)) < 0.06
    assert mass_jsd(score, mass, at=0.1) > 10 * mass_jsd(z, mass, at=0.1)


def test_a_rank_does_not_depend_on_the_units_of_the_score():
    score, mass = background(3000, 1)
    ranks = []
    for f in (np.asarray, np.exp, lambda x: np.cbrt(x) - 5):
        s, m = background(3000, 0)
        ranks.append(MassDecorrelated(300).fit(f(s), m).transform(f(score), mass))
    inside = np.abs(ranks[0]) < 2
    for r in ranks[1:]:
        np.testing.assert_allclose(r[inside], ranks[0][inside], atol=0.02)


def test_a_score_that_is_nearly_the_mass_leaves_nothing():
    (_, mass), (_, other) = background(4000, 0), background(4000, 1)
    assert (MassDecorrelated(300).fit(0 * other, other).transform(0 * mass, mass) == 0).all()

    def nearly(m, seed):
        return np.log(m) + 0.05 * np.random.default_rng(seed).normal(size=len(m))

    z = MassDecorrelated(300).fit(nearly(other, 2), other).transform(nearly(mass, 3), mass)
    assert abs(spearman(z, mass)) < 0.06 and mass_jsd(z, mass, at=0.1) < 1.5 * jsd_floor(
        z, mass, at=0.1
    )


@pytest.mark.parametrize("far", [-1e6, 1e6])
def test_beyond_all_neighbours_the_order_stays(far):
    d = MassDecorrelated(100).fit(*background(1000, 0))
    z = d.transform(np.array([far, 2 * far]), np.array([80.0, 80]))
    assert (
        np.isfinite(z).all() and (z[0] != z[1] or abs(z[0]) > 8) and np.sign(z[1]) == np.sign(far)
    )
    assert np.isfinite(d.transform(np.array([10.0]), np.array([1e6]))).all()


def test_weights_of_the_background_are_copies():
    score, mass = background(1500, 0)
    copies = np.random.default_rng(0).integers(0, 3, 1500)
    test = background(50, 1)
    weighted = MassDecorrelated(400).fit(score, mass, copies).transform(*test)
    repeated = (
        MassDecorrelated(400)
        .fit(np.repeat(score, copies), np.repeat(mass, copies))
        .transform(*test)
    )
    assert np.corrcoef(weighted, repeated)[0, 1] > 0.995 and abs(weighted - repeated).mean() < 0.1


def test_cross_fitting_never_ranks_a_jet_among_its_like():
    score, mass = background(800, 0)
    (z,) = decorrelate(score, mass)
    moved = score.copy()
    moved[0] += 100
    (again,) = decorrelate(moved, mass)
    assert again[0] > z[0]
    np.testing.assert_allclose(
        again[2::2], z[2::2], atol=1e-12
    )  # jets of the same half do not see it
    assert (again[1::2] != z[1::2]).any()


def test_profiles_and_planing():
    x, y = background(500, 0)
    centre, mean, error = mean_profile(x, y, bins=5)
    edges = np.quantile(x, np.linspace(0, 1, 6))
    inside = x < edges[1]
    np.testing.assert_allclose(
        [mean[0], error[0]], [y[inside].mean(), y[inside].std() / np.sqrt(inside.sum())]
    )
    edges = np.array([20, 50, 100, 200.0])
    np.testing.assert_allclose(
        np.histogram(y, edges, weights=planing_weights(y, edges))[0] / np.diff(edges), 500 / 180
    )


@few
@given(seeds, st.sampled_from([(), 1, 0]))
def test_p_values_fall_and_invert(seed, digits):
    rng = np.random.default_rng(seed)
    scores, asked = rng.gumbel(size=250), rng.gumbel(size=20) * 3
    if digits != ():
        scores = scores.round(digits)
    c = Calibration().fit(scores)
    p, low, high = c.p_value_band(np.sort(asked))
    assert (
        (np.diff(p) <= 1e-12).all()
        and (0 < low).all()
        and (low <= p).all()
        and (p <= high).all()
        and (high <= 1).all()
    )
    counted = np.array([(scores >= s).mean() for s in np.unique(scores)])
    kept = counted >= 25 / 250
    np.testing.assert_allclose(c.p_value(np.unique(scores))[kept], counted[kept], atol=1e-9)


def test_a_working_point_travels(tmp_path):
    rng = np.random.default_rng(0)
    c = Calibration().fit(torch.tensor(rng.gumbel(size=20_000)))
    c.save(tmp_path / "c.safetensors")
    back, fresh = Calibration.load(tmp_path / "c.safetensors"), rng.gumbel(size=20_000)
    assert kstest(back.p_value(fresh), "uniform").statistic < 1.95 * np.sqrt(2 / 20_000)
    for at in (0.1, 0.01):
        assert abs((fresh > back.threshold(at)).mean() - at) < 4 * np.sqrt(2 * at / 20_000)
    assert isinstance(c.p_value(torch.tensor(fresh)), torch.Tensor)
    MassDecorrelated(20).fit(fresh[:50], fresh[:50]).save(tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="expected"):
        Calibration.load(tmp_path / "m.safetensors")
    with pytest.raises(FileNotFoundError):
        Calibration.load(tmp_path / "none")


def samples(n=600):
    rng = np.random.default_rng(0)

    def one(shift):
        mass = 50 + 30 * rng.random(n) + 20 * shift
        tau = np.sort(rng.random((3, n)), 0)[::-1]
        return Sample(
            {"loss": mass / 30 + rng.normal(shift, 1, n)},
            {
                "mass": mass,
                "pt": 550 + 100 * rng.random(n),
                "tau1": tau[0],
                "tau2": tau[1],
                "tau3": tau[2],
            },
        )

    return one(0), {"top": one(1), "w & <script>": one(0.5)}


def test_a_report_is_whole_and_repeatable(tmp_path):
    background, signals = samples()
    pages = []
    for folder in "first", "second":
        results = write_report(
            tmp_path / folder,
            background,
            signals,
            [{"epoch": 0, "loss": 1.0}],
            detector="<b>x</b>",
            n=20,
        )
        pages.append((tmp_path / folder / "report.html").read_bytes())
        assert json.loads((tmp_path / folder / "results.json").read_text()) == results
    assert pages[0] == pages[1]
    page = pages[0].decode()
    assert (
        "<script" not in page
        and "<b>x" not in page
        and not re.search(r"(src|href)=['\"](?!data:)", page)
        and "viewport" in page
    )
    e = results["signals"]["top"]
    assert e["auc"][1] <= e["auc"][0] <= e["auc"][2] and set(e["rejection"]) == {
        "0.2",
        "0.3",
        "0.5",
    }
    assert (
        set(results["decorrelation"]["jsd"]) == {"0.5", "0.1", "0.01"}
        and results["comparison"]["spectrum"] == "pt"
    )
    assert set(results["twins"]) == {"mass", "-tau21", "-tau32"}


def test_the_numbers_of_a_report_are_those_of_the_metrics(dcor):
    background, signals = samples()
    results = evaluate(background, signals, n=20)
    top = signals["top"]
    w = match_spectrum(background.observables["pt"], top.observables["pt"])
    pair = background.scores["loss"], top.scores["loss"]
    assert results["signals"]["top"]["auc"] == pytest.approx(
        list(bootstrap(auc, *pair, None, w, n=20))
    )
    assert results["signals"]["top"]["rejection"]["0.3"] == pytest.approx(
        rejection(*pair, None, w, at=0.3)
    )
    assert results["signals"]["top"]["max_sic"] == pytest.approx(
        max_sic(Sweep(*pair, None, w).roc())
    )
    assert results["decorrelation"]["distance_correlation"] == pytest.approx(
        dcor.distance_correlation(pair[0], background.observables["mass"])
    )


def test_a_failed_report_leaves_the_old_one(tmp_path):
    background, signals = samples(100)
    write_report(tmp_path, background, signals, n=5)
    before = (tmp_path / "report.html").read_bytes()
    with pytest.raises(ValueError, match="Nothing to draw"):
        write_report(tmp_path, background, signals, [{"epoch": 0}], n=5)
    assert (tmp_path / "report.html").read_bytes() == before and sorted(
        p.name for p in tmp_path.iterdir()
    ) == ["report.html", "results.json"]


def test_a_sample_that_lacks_things():
    with pytest.raises(KeyError, match="tau21"):
        score_of(Sample({"a": [1.0, 2]}), "tau21")
    with pytest.raises(ValueError, match="at least one score"):
        Sample({})
    with pytest.raises(KeyError, match="nothing"):
        evaluate(*samples(50), score="nothing")
    one = Sample({"a": [1.0, 2]}, {"tau1": np.array([0.0, 1]), "tau2": np.array([0.0, 0.5])})
    np.testing.assert_allclose(score_of(one, "-tau21"), [-1, -0.5])


@few
@given(jets(exact=False), seeds)
def test_negative_weights_have_an_auc_and_no_working_point(sample, seed):
    b, s, w, v = sample
    w, v = (x * np.where(np.random.default_rng(seed).random(len(x)) < 0.2, -1, 1) for x in (w, v))
    if min(w.sum(), v.sum()) <= 1e-3:
        return
    won = (s > b[:, None]) + 0.5 * (s == b[:, None])
    assert auc(b, s, w, v) == pytest.approx(w @ won @ v / w.sum() / v.sum(), rel=1e-9, abs=1e-9)
    if min(w.min(), v.min()) < 0:
        for metric in rejection, efficiency_at, max_sic:
            with pytest.raises(ValueError, match="negative"):
                metric(b, s, w, v)


def test_what_needs_positive_weights_says_so():
    x, w = np.arange(300.0), np.where(np.arange(300) % 3, 1.0, -1.0)
    for f in distance_correlation, spearman, mass_jsd:
        with pytest.raises(ValueError, match="negative"):
            f(x, x, w)
    with pytest.raises(ValueError, match="negative"):
        Calibration().fit(x, w)
    with pytest.raises(ValueError, match="negative"):
        Sample({"s": x}, {"weight": w})


def test_event_weights_of_a_report_are_copies():
    rng, parts = np.random.default_rng(1), {}
    background, signals = samples(300)
    for name, s in {"background": background, "top": signals["top"]}.items():
        w = rng.integers(1, 4, len(s))
        many = {k: np.repeat(v, w) for k, v in s.observables.items()}
        weighted = Sample(s.scores, s.observables | {"weight": w.astype(float)})
        parts[name] = weighted, Sample({"loss": np.repeat(s.scores["loss"], w)}, many)
    edges = dict(n=3, match="none", twins=["mass"])  # bins of equal population differ
    one, other = (
        evaluate(parts["background"][i], {"top": parts["top"][i]}, **edges) for i in (0, 1)
    )
    assert one["signals"]["top"]["auc"][0] == pytest.approx(other["signals"]["top"]["auc"][0])
    for key in "distance_correlation", "spearman":
        assert one["decorrelation"][key] == pytest.approx(other["decorrelation"][key])
    plain = evaluate(background, {"top": signals["top"]}, **edges)
    assert one["signals"]["top"]["auc"][0] != plain["signals"]["top"]["auc"][0]


@pytest.mark.parametrize(
    "labels, text",
    [
        ([0, 1, np.nan], "NaN"),
        ([-1, 1, 1], "labels > 0"),
        ([1, 1, 2], "expected 0 for background"),
        ([-1, 0, 1], "no truth"),
        ([[0, 1], [1, 0], [1, 0]], "one number per jet"),
        ([0, 0.3, 1], "no classes"),
        (["a", "b", "c"], "one number per jet"),
    ],
)
def test_labels_that_are_no_classes(labels, text):
    with pytest.raises(ValueError, match=text):
        by_label(labels, [1.0, 2, 3])
