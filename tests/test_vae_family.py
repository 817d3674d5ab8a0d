"""The VAE family against numbers made by hand: schedules, exposure losses, distance correlation, a latent space that lives."""

import numpy as np
import pytest
import torch

from jet_anomaly.detect.detector import make_detector
from jet_anomaly.detect.disco import DisCo
from jet_anomaly.detect.exposure import OutlierExposure, histogram_weights
from jet_anomaly.evaluate.distance import distance_correlation
from jet_anomaly.jet.jets import Jets
from jet_anomaly.train.latent import importance_log_likelihood, noise_variance
from jet_anomaly.train.loop import Step
from jet_anomaly.train.schedules import schedule, settled


def toy_jets(n, seed, prongs=1, heavy=0.0):
    "Jets of 30 particles about their prongs, the heavier the wider."
    rng = np.random.default_rng(seed)
    width = rng.gamma(2.0, 0.06, (n, 1)) + heavy
    pt = np.sort(rng.exponential(1, (n, 30)), 1)[:, ::-1]
    pt = 600 * pt / pt.sum(1, keepdims=True)
    angle = 2 * np.pi * rng.integers(prongs, size=(n, 30)) / prongs
    eta, phi = (
        width * f(angle) * (prongs > 1) + rng.normal(0, 0.3, (n, 30)) * width
        for f in (np.cos, np.sin)
    )
    return Jets.from_constituents(
        np.stack([pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], -1)
    )


QCD, VALID, OTHER = toy_jets(600, 0), toy_jets(200, 1), toy_jets(400, 2, prongs=2, heavy=0.1)
SMALL = dict(hidden=(32, 16), latent=4)
QUICK = dict(batch_size=100, device="cpu", progress=False)

RAMPS = {  # name → weight at each epoch, written out
    "warmup": [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9] + [1] * 10,
    "cyclic_short": [0, 0.2, 0.4, 0.6, 0.8] * 3 + [1] * 10,
    "cyclic_long": [e / 30 for e in range(30)] * 2 + [1] * 10,
    "disco": [0] * 10 + [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9] * 2 + [1] * 10,
    "exposure": [0] * 10 + [0, 0.2, 0.4, 0.6, 0.8] * 2 + [1] * 10,
    "step_30": [1] * 30 + [0.1] * 40,
    "steps_30_60": [1] * 30 + [0.1] * 30 + [0.01] * 10,
}


@pytest.mark.parametrize("name", RAMPS)
def test_published_schedules_epoch_by_epoch(name):
    assert [schedule(name)(e) for e in range(len(RAMPS[name]))] == pytest.approx(RAMPS[name])
    assert settled(name) == next(
        e for e in range(len(RAMPS[name])) if len(set(RAMPS[name][e:])) == 1
    )


@pytest.mark.parametrize("kl", ["mean", "sum"])
def test_the_history_of_a_training_shows_the_annealing(kl):
    vae = make_detector("vae", beta=0.3, kl=kl, annealing="cyclic_short", **SMALL)
    h = vae.fit(QCD[:200], VALID[:100], epochs=18, **QUICK)
    for kind in "train", "valid":
        expected = [
            r + 0.3 * w * k
            for r, k, w in zip(h[f"{kind}_reconstruction"], h[f"{kind}_kl"], RAMPS["cyclic_short"])
        ]
        assert h[f"{kind}_loss"] == pytest.approx(expected, rel=1e-5)


def test_the_latent_space_lives_and_its_death_is_seen():
    living, dead = (make_detector("vae", beta=beta, **SMALL) for beta in (0.01, 1e4))
    for vae in living, dead:
        vae.fit(QCD, VALID, epochs=12, **QUICK)
    assert len(living.history["active_latents"]) == 12 and living.history["active_latents"][-1] >= 2
    assert min(living.history["valid_kl"]) > 0.01 and living.scores(VALID)["kl"].std() > 0
    assert dead.history["active_latents"][-1] == 0 and dead.history["valid_kl"][-1] < 0.01
    means = living.posterior(*living.columns(VALID))[0].var(0)
    assert living.scores(VALID)["radius"].max() > 0 and (means > 0.01).sum() >= 2


@pytest.mark.parametrize("name", ["vae", "lstm_vae", "disco_vae", "oe_vae"])
def test_active_latents_stand_in_every_history(name):
    small = dict(hidden=(12, 8), latent=4) if name == "lstm_vae" else SMALL
    h = make_detector(name, **small).fit(QCD[:200], VALID[:50], epochs=1, **QUICK)
    assert 0 <= h["active_latents"][0] <= 4 and h["valid_kl"][0] > 0


def test_likelihood_is_seeded_and_rises_with_samples():
    vae = make_detector("vae", beta=0.1, samples=1, **SMALL)
    vae.fit(QCD, epochs=6, **QUICK)
    few = vae.anomaly_score(VALID, "likelihood")
    assert np.array_equal(few, vae.anomaly_score(VALID, "likelihood"))
    assert vae.anomaly_score(VALID, "likelihood", batch_size=7) == pytest.approx(
        few, rel=1e-4, abs=1e-3
    )
    (x,) = vae.columns(VALID)
    mean, log_var = (t.detach() for t in vae.posterior(x))
    variance = noise_variance(vae.config, x.shape[1], 4)

    def estimate(k):
        return torch.stack(
            [
                importance_log_likelihood(x, mean, log_var + 2, vae.decode, variance, k, seed)
                for seed in range(10)
            ]
        ).mean()

    with torch.no_grad():
        bounds = [estimate(k).item() for k in (1, 8, 64)]
    assert bounds == sorted(
        bounds
    )  # with a posterior that is too wide the bound comes closer from below


def by_hand(inside, outside, form, margin):
    "One pair of jets after the other."
    rows = [
        max(a - b + margin, 0.0) if form == "margin" else -1 / (1 + np.exp(a - b))
        for a, b in zip(inside.ravel(), outside.ravel())
    ]
    return sum(rows) / len(rows)


@pytest.mark.parametrize(
    "exposed, form, margin",
    [
        ("kl", "margin", 1.0),
        ("kl", "margin", 0.25),
        ("reconstruction", "sigmoid", 1.0),
        ("reconstruction", "margin", 0.5),
    ],
)
def test_exposure_losses_by_hand(exposed, form, margin):
    vae = make_detector("vae", **SMALL)
    vae.fit(QCD, epochs=2, **QUICK)
    vae.eval()
    term = {"kl": "kl_latent"}.get(exposed, exposed)
    oe = OutlierExposure(OTHER, term, form, margin, weight=2.0, ratio=2.0, ramp="exposure")
    (drawn,) = oe.columns(vae, QCD)
    inside = vae.terms(*vae.columns(QCD[:50]))
    rest = OTHER[np.random.default_rng(0).permutation(len(OTHER))[:300]][
        60:
    ]  # 600 jets at ratio 2, a fifth of them held out
    for epoch, weight in (5, 0.0), (12, 0.4), (17, 0.4), (19, 0.8), (20, 1.0), (45, 1.0):
        outside = vae.terms(*vae.columns(rest[drawn[:50, epoch % 16].numpy()]))
        hand = (
            2
            * weight
            * by_hand(inside[term].detach().numpy(), outside[term].detach().numpy(), form, margin)
        )
        assert oe(vae, inside, (drawn[:50],), Step(epoch)).item() == pytest.approx(
            hand, rel=1e-5, abs=1e-7
        )
    assert inside["kl_latent"].shape == (50, 4)  # KL-OE asks every dimension on its own


@pytest.mark.parametrize("match", ["histogram", "boosting"])
def test_outliers_are_drawn_with_the_mass_spectrum_of_the_background(match):
    vae = make_detector("vae", **SMALL)
    vae.representation.fit(QCD)
    qcd, other = toy_jets(1500, 3), toy_jets(2000, 4, prongs=2, heavy=0.05)
    oe = OutlierExposure(other, ratio=1.0, match=match)
    (drawn,) = oe.columns(vae, qcd)
    before, after = (
        oe.parts[0].observables["mass"],
        oe.parts[0].observables["mass"][drawn.numpy()].ravel(),
    )
    edges = np.quantile(qcd.observables["mass"], np.linspace(0, 1, 9))
    covered = edges[
        np.searchsorted(edges, np.quantile(before, 0.02)) :
    ]  # where there are outliers at all
    share = [
        np.histogram(m, covered)[0] / np.histogram(m, covered)[0].sum()
        for m in (qcd.observables["mass"], before, after)
    ]
    assert np.abs(share[2] - share[0]).max() < 0.3 * np.abs(share[1] - share[0]).max()


def test_a_spectrum_without_overlap_is_refused():
    with pytest.raises(ValueError, match="No overlap"):
        histogram_weights(np.zeros(5), np.ones(5))


@pytest.mark.parametrize("name, full", [("disco_vae", 30), ("oe_vae", 20)])
def test_the_best_epoch_is_one_with_the_whole_loss(name, full):
    detector = make_detector(name, **SMALL)
    detector.fit(QCD[:200], VALID[:100], epochs=full + 2, **QUICK)
    losses = detector.history["valid_loss"]
    assert detector.provenance["settings"].get("best_from", full) == full
    early = make_detector(name, **SMALL, ramp="none")
    early.fit(QCD[:200], VALID[:100], epochs=2, **QUICK)
    assert len(losses) == full + 2 and set(detector.history["lr"][:full]) == {1e-3}


@pytest.mark.parametrize("n", [30, 400])
@pytest.mark.parametrize("kind", ["plain", "tied", "offset", "tails"])
def test_distance_correlation_is_that_of_dcor(n, kind, dcor):
    rng = np.random.default_rng(n)
    x = rng.normal(size=(3, n))
    y = x**2 + rng.normal(size=(3, n))
    if kind == "tied":
        x, y = x.round(0), y.round(0)
    if kind == "offset":
        x, y = 1e4 + x, 1e-3 * y
    if kind == "tails":
        x, y = np.exp(3 * x), rng.gamma(2.0, 40.0, (3, n))
    for squared in (False, True):
        expected = [
            dcor.distance_correlation_sqr(a, b) if squared else dcor.distance_correlation(a, b)
            for a, b in zip(x, y)
        ]
        assert distance_correlation(
            torch.tensor(x), torch.tensor(y), squared=squared
        ).numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("squared", [False, True])
def test_its_gradient_is_finite_at_ties_and_constants(squared):
    tied = torch.randint(0, 4, (300,), generator=torch.Generator().manual_seed(0)).float()
    for x in tied, torch.ones(300), torch.arange(300.0):
        for y in tied.flip(0), torch.ones(300), torch.arange(300.0), x:
            x = x.clone().requires_grad_()
            assert (
                torch.autograd.grad(distance_correlation(x, y, squared=squared), x)[0]
                .isfinite()
                .all()
            )


def test_remembered_jets_count_but_do_not_move(dcor):
    "With the first half remembered, the second feels what it would feel if all could move, times the number of halves."
    x, y = torch.randn(2, 200, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()

    def term(penalty, part):
        return penalty(None, {"loss": x[part]}, (y[part],), Step())

    whole = term(DisCo(weight=2.0, ramp="none"), slice(0, 200))
    memory = DisCo(weight=2.0, ramp="none", batch=200)
    term(memory, slice(0, 100))
    half = term(memory, slice(100, 200))
    assert half.item() == pytest.approx(whole.item(), abs=1e-6)
    g, h = (torch.autograd.grad(v, x)[0] for v in (whole, half))
    assert torch.allclose(h[100:], 2 * g[100:], atol=1e-6) and not h[:100].any()
    parts = term(DisCo(weight=2.0, ramp="none", batch=50), slice(0, 200))
    expected = 2 * np.mean(
        [
            dcor.distance_correlation_sqr(
                *(v[i : i + 50].detach().double().numpy() for v in (x, y))
            )
            for i in range(0, 200, 50)
        ]
    )
    assert parts.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "name, observable", [("dense_ae", "mass"), ("dense_ae", "n_constituents"), ("lstm_vae", "pt")]
)
def test_any_detector_can_be_decorrelated_from_any_observable(name, observable):
    small = dict(hidden=(12, 8), latent=4) if name == "lstm_vae" else SMALL
    detector = make_detector(name, **small)
    h = detector.fit(
        QCD, VALID, penalties=[DisCo(observable, weight=30.0, ramp="none")], epochs=2, **QUICK
    )
    assert "train_disco" in h.rows[0] and h["train_loss"][0] > h["train_disco"][0] >= 0
    assert detector.provenance["penalties"] and not len(detector.penalties)
