"""What every registered detector promises, tried on every one of them."""

import copy

import numpy as np
import pytest
import torch
from extremes import EXTREME, all_extremes, jets_of

from jet_anomaly.detect.detector import (
    Detector,
    detector_class,
    detector_names,
    load_detector,
    make_detector,
)
from jet_anomaly.jet.jets import Jets
from jet_anomaly.train.loop import Step

NAMES = detector_names()
# all tests of a detector run in one process, which trains it once; so do those of one family of kernels
GROUPS = {"both_ways": "prongs", "pseudo_decay": "prongs", "oe_vae": "prongs"}
EACH = [pytest.param(n, marks=pytest.mark.xdist_group(GROUPS.get(n, n))) for n in NAMES]
DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


def toy_jets(n, seed, width=40):
    "Jets with every feature and observable a detector may ask for; some have one constituent, some are full."
    rng = np.random.default_rng(seed)
    count = np.r_[1, 2, 3, width, rng.integers(5, width + 1, n - 4)][:, None]
    mask = np.arange(width) < count
    pt = np.sort(rng.exponential(1, (n, width)) * mask, 1)[:, ::-1]
    pt = 600 * pt / pt.sum(1, keepdims=True)
    eta, phi = rng.normal(0, 0.25, (2, n, width)) + rng.uniform(-1.5, 1.5, (2, n, 1))
    p4 = (
        np.stack([pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], -1)
        * mask[..., None]
    )
    charged = rng.random((n, width)) < 0.6
    features = {
        "d0": rng.normal(0, 0.1, (n, width)) * charged,
        "d0_err": 0.05 * charged,
        "dz": rng.normal(0, 0.1, (n, width)) * charged,
        "dz_err": 0.05 * charged,
        "pdgid": np.where(
            charged, rng.choice([211, -211, 11, -13], (n, width)), rng.choice([22, 130], (n, width))
        ),
        "charge": charged * rng.choice([-1, 1], (n, width)),
    }
    features = {
        k: (v * mask).astype(np.int32 if k in ("pdgid", "charge") else np.float32)
        for k, v in features.items()
    }
    names = "tau1", "tau2", "tau3", "tau4", "tau21", "tau32", "d2", "softdrop_mass"
    return Jets.from_constituents(
        p4,
        mask,
        features,
        {k: rng.uniform(0.1, 1, n).astype(np.float32) for k in names},
        labels=np.arange(n) % 2,
    )


TRAIN, TEST, HELD_OUT = toy_jets(300, 0), toy_jets(60, 1), toy_jets(240, 2)


@pytest.fixture(scope="module")
def trained():
    "Each detector, small and briefly trained; made when first asked for."
    made = {}

    def get(name):
        if name not in made:
            detector = make_detector(name, **detector_class(name).small)
            detector.fit(TRAIN, HELD_OUT, epochs=2, batch_size=50, device="cpu", progress=False)
            made[name] = detector
        return made[name]

    return get


def scores_equal(
    a, b, tolerance=1e-4 if DEVICES == ["cpu"] else 1e-3
):  # a GPU adds batches of other sizes in other orders
    assert set(a) == set(b)
    for k in a:
        scale = max(float(np.std(a[k])), 1e-6)
        assert np.abs(a[k] - b[k]).max() < tolerance * scale + 1e-5 * np.abs(a[k]).max(), k


@pytest.mark.parametrize("name", EACH)
def test_scores_are_numbers_of_each_jet(trained, name):
    detector = trained(name)
    scores = detector.scores(TEST)
    assert detector.score in scores
    for k, s in scores.items():
        assert s.shape == (len(TEST),) and s.dtype == np.float32 and np.isfinite(s).all(), k
    chosen = detector.anomaly_score(TEST)
    assert np.array_equal(chosen, scores[detector.score]) and chosen.std() > 0


@pytest.mark.parametrize("name", EACH)
def test_scores_are_deterministic_and_leave_random_numbers_alone(trained, name):
    detector = trained(name)
    expected = torch.get_rng_state()
    first = detector.scores(TEST)
    assert torch.equal(torch.get_rng_state(), expected)
    second = detector.scores(TEST)
    assert all(np.array_equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("name", EACH)
def test_scores_do_not_depend_on_batch_order_or_padding(trained, name):
    detector, expected = trained(name), trained(name).scores(TEST)
    scores_equal(expected, detector.scores(TEST, batch_size=7))
    order = np.random.default_rng(0).permutation(len(TEST))
    scores_equal({k: v[order] for k, v in expected.items()}, detector.scores(TEST[order]))
    pad = ((0, 0), (0, 25))
    wide = Jets(
        np.pad(TEST.p4, (*pad, (0, 0))),
        np.pad(TEST.mask, pad),
        {k: np.pad(v, pad) for k, v in TEST.features.items()},
        TEST.observables,
    )
    scores_equal(expected, detector.scores(wide))


@pytest.mark.parametrize("name", EACH)
def test_every_score_has_p_values_and_a_rank_at_fixed_mass(trained, name):
    detector = trained(name)
    own = detector.score
    assert f"{own}|mass" in detector.scores(TEST)
    for score in own, f"{own}|mass", f"{own}|mass:0.3":
        s, p = detector.anomaly_score(TEST, score), detector.p_value(TEST, score)
        assert s.dtype == np.float32 and np.isfinite(s).all() and ((0 < p) & (p <= 1)).all()
        order = np.argsort(s, kind="stable")
        assert (np.diff(p[order]) <= 1e-12).all(), "a higher score is never less strange"
    ordinary = detector.background.scores[own]
    by_hand = np.mean(ordinary[:, None] >= detector.anomaly_score(TEST), 0)
    counted = by_hand * len(HELD_OUT) > 25
    ties = np.unique(ordinary, return_counts=True)[1].max() / len(HELD_OUT)
    atol = 0.02 + ties / 2  # beside a tie the p-value comes from its middle
    np.testing.assert_allclose(detector.p_value(TEST)[counted], by_hand[counted], atol=atol)
    kept, mass = detector.background.own_ranks(f"{own}|mass"), HELD_OUT.observables["mass"]
    assert abs(np.corrcoef(np.argsort(np.argsort(kept)), np.argsort(np.argsort(mass)))[0, 1]) < 0.25


def test_a_detector_goes_back_to_where_it_was(trained, monkeypatch):
    "Another device is played by a name: where the detector says it is, and where it was sent."
    detector, sent = trained("vae"), ["elsewhere"]
    monkeypatch.setattr(Detector, "device", property(lambda self: sent[-1]))
    monkeypatch.setattr(Detector, "to", lambda self, device: sent.append(str(device)) or self)
    detector.train()
    detector.anomaly_score(TEST, device="cpu")
    detector.compute(lambda x: {"x": x}, TEST, device="cpu")
    with pytest.raises(ZeroDivisionError):
        detector.compute(lambda x: 1 / 0, TEST, device="cpu")
    assert sent == ["elsewhere", *["cpu", "elsewhere"] * 3] and detector.training
    detector.eval()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused(trained):
    for use in trained("vae").anomaly_score, make_detector("vae").fit, make_detector("pca").fit:
        with pytest.raises(ValueError, match="not available here"):
            use(TRAIN, device="cuda")


@pytest.mark.parametrize("name", EACH)
def test_labels_are_never_looked_at(trained, name):
    blind = Jets(TEST.p4, TEST.mask, TEST.features, TEST.observables)
    expected = trained(name).anomaly_score(TEST)
    assert np.array_equal(expected, trained(name).anomaly_score(blind))


@pytest.mark.parametrize("name", EACH)
def test_every_term_reaches_the_parameters_with_finite_gradients(trained, name):
    detector = copy.deepcopy(
        trained(name)
    )  # what a training step leaves behind is nothing for the other tests
    if not list(detector.parameters()):
        pytest.skip("nothing is trained by gradients")
    columns = detector.columns(TEST)
    detector.train()
    for term in detector.terms(*detector.inputs(*columns), step=Step(epoch=10**6)):
        torch.manual_seed(0)
        detector.zero_grad()
        value = detector.terms(*detector.inputs(*columns), step=Step(epoch=10**6))[term].mean()
        value.backward()
        gradients = [p.grad for p in detector.parameters() if p.grad is not None]
        assert gradients and all(g.isfinite().all() for g in gradients), term
        assert sum(g.abs().sum().item() for g in gradients) > 0, f"{term} reaches no parameter"
    detector.eval()


@pytest.mark.parametrize("name", EACH)
def test_saved_and_loaded_it_scores_the_same(trained, name, tmp_path):
    detector = trained(name)
    detector.save(tmp_path)
    again = load_detector(tmp_path)
    assert (
        type(again) is type(detector)
        and again.config == detector.config
        and again.provenance == detector.provenance
    )
    expected, scores = detector.scores(TEST), again.scores(TEST)
    assert all(np.array_equal(expected[k], scores[k]) for k in expected)
    assert not list(tmp_path.glob("*.pkl")) and {p.name for p in tmp_path.iterdir()} <= {
        "config.json",
        "weights.safetensors",
        "background.safetensors",
        "history.csv",
    }
    assert again.window == detector.window
    assert np.array_equal(again.p_value(TEST), detector.p_value(TEST))


@pytest.mark.parametrize("name", EACH)
def test_a_training_from_files_that_is_interrupted_ends_with_the_same_bits(trained, name, tmp_path):
    "The seed of the training decides alone: not where the jets lie, not a break, not the random numbers before."
    for part, jets in {"train": TRAIN, "test": TEST, "held_out": HELD_OUT}.items():
        jets.to_hdf5(tmp_path / f"{part}.h5")
    for epochs in 1, 2:
        torch.manual_seed(77 + epochs)
        detector = make_detector(name, **detector_class(name).small)
        detector.fit(
            tmp_path / "train.h5",
            tmp_path / "held_out.h5",
            epochs=epochs,
            batch_size=50,
            device="cpu",
            progress=False,
            folder=tmp_path / "training",
        )
    whole = trained(name)
    for (k, a), b in zip(whole.state_dict().items(), detector.state_dict().values(), strict=True):
        assert torch.equal(a, b), k
    found = detector.anomaly_score(tmp_path / "test.h5")
    assert np.array_equal(whole.anomaly_score(TEST), found)


@pytest.mark.parametrize("name", EACH)
def test_scores_on_the_gpu_are_those_of_the_cpu(trained, name):
    if len(DEVICES) < 2:
        pytest.skip("no GPU here")
    detector = trained(name)
    expected, scores = detector.scores(TEST, device="cpu"), detector.scores(TEST, device="cuda")
    for k in expected:
        np.testing.assert_allclose(
            scores[k], expected[k], rtol=2e-3, atol=2e-3 * max(expected[k].std(), 1e-6)
        )
    detector.to("cpu")


def test_nothing_to_learn_from_is_refused():
    with pytest.raises(ValueError, match="No jets"):
        make_detector("vae").fit(TRAIN[:0])
    with pytest.raises(KeyError, match="known"):
        make_detector("wae")


@pytest.mark.parametrize("name", EACH)
@pytest.mark.filterwarnings("ignore::jet_anomaly.detect.background.OutsideWindow")
def test_extreme_jets_have_finite_scores(trained, name):
    for score, values in trained(name).scores(all_extremes(), device="cpu").items():
        assert np.isfinite(values).all(), (score, np.flatnonzero(~np.isfinite(values)))


SINGLE = {"channel_vae"}  # keeps its latent numbers in single precision, whatever comes in


@pytest.mark.parametrize("name", [p for p in EACH if p.values[0] not in SINGLE])
def test_scores_in_double_precision_are_the_same(trained, name):
    detector = copy.deepcopy(trained(name)).eval()
    x = detector.inputs(*detector.columns(jets_of(EXTREME["ordinary"])))
    wide = tuple(t.double() if t.is_floating_point() else t for t in x)
    with torch.no_grad():
        torch.manual_seed(0)
        found, before = detector.score_terms(*x), torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            torch.manual_seed(0)
            exact = detector.double().score_terms(*wide)
        finally:
            torch.set_default_dtype(before)
    for k, b in exact.items():
        scale = b.abs().max() + 1e-30
        assert ((found[k].double() - b).abs() <= 2e-3 * scale).all(), (k, found[k], b)
