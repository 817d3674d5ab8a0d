"""A detector's folder that is damaged or crafted: documented errors only, and no more memory than its files."""

import hashlib
import json
import random
import shutil

import pytest
import torch
from helpers import ROOT, python
from safetensors.torch import load_file, save_file
from test_contract import HELD_OUT, TEST, TRAIN

from jet_anomaly.detect.detector import load_detector, make_detector

DOCUMENTED = (ValueError, KeyError, FileNotFoundError, ImportError)
pytestmark = pytest.mark.filterwarnings("ignore")  # what damage says of the window
NAMES = {
    "vae": dict(hidden=(16, 8), latent=3),
    "isolation_forest": dict(trees=5, sample=32),
    "pca": {},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for name, options in NAMES.items():
        detector = make_detector(name, **options)
        detector.fit(TRAIN, HELD_OUT, epochs=1, batch_size=100, device="cpu", progress=False)
        made[name] = detector.save(tmp_path_factory.mktemp(name))
    return made


def signed(folder):
    "Make the digests right again, as somebody would who damages a file on purpose."
    said = json.loads((folder / "config.json").read_text())
    said["weights_sha256"] = hashlib.sha256(
        (folder / "weights.safetensors").read_bytes()
    ).hexdigest()
    said["background"] = False  # which knows the digest, too
    (folder / "config.json").write_text(json.dumps(said))


def leaves(x, at=()):
    "Paths to every value in nested dicts and lists."
    yield at
    for k, v in x.items() if isinstance(x, dict) else enumerate(x) if isinstance(x, list) else ():
        yield from leaves(v, (*at, k))


VALUES = [None, True, -1, 0, 10**9, 10**30, 1e300, "x", "", [], {}, [[]], ["a"], [-1], float("nan")]


def exchanged(said, rng):
    "The configuration with one value exchanged for something else."
    said = json.loads(json.dumps(said))
    *path, last = rng.choice([p for p in leaves(said) if p])
    at = said
    for k in path:
        at = at[k]
    at[last] = rng.choice(VALUES)
    return said


def outcome(folder):
    "What loading and scoring end in."
    try:
        detector = load_detector(folder)
    except DOCUMENTED as e:
        return type(e).__name__
    try:
        scores = detector.anomaly_score(TEST[:20])
    except DOCUMENTED:
        return "scoring"
    assert scores.shape == (20,)
    return "loaded"


@pytest.mark.parametrize("name", NAMES)
def test_exchanged_values_are_documented_errors(folders, name, tmp_path):
    rng, seen = random.Random(0), {}
    text = (folders[name] / "config.json").read_text()
    copy = shutil.copytree(folders[name], tmp_path / "copy")
    for _ in range(100):
        (copy / "config.json").write_text(json.dumps(exchanged(json.loads(text), rng)))
        kind = outcome(copy)
        seen[kind] = seen.get(kind, 0) + 1
    assert seen["ValueError"] > 25 and set(seen) <= {
        "ValueError",
        "KeyError",
        "loaded",
        "scoring",
    }, seen


@pytest.mark.parametrize(
    "file", ["config.json", "weights.safetensors", "background.safetensors", "history.csv"]
)
def test_changed_bytes_are_documented_errors(folders, file, tmp_path):
    rng = random.Random(1)
    copy = shutil.copytree(folders["vae"], tmp_path / "copy")
    whole = (copy / file).read_bytes()
    for i in range(40):
        data = bytearray(whole)
        if i % 3:
            for _ in range(rng.randint(1, 8)):
                data[rng.randrange(min(len(data), 600 if i % 2 else len(data)))] = rng.randrange(
                    256
                )
        else:
            del data[rng.randrange(len(data)) :]
        (copy / file).write_bytes(data)
        if file == "weights.safetensors":
            try:
                signed(copy)
            except ValueError:
                pass
        outcome(copy)


def test_nan_in_weights_is_refused(folders, tmp_path):
    copy = shutil.copytree(folders["vae"], tmp_path / "copy")
    tensors = load_file(copy / "weights.safetensors")
    tensors["encoder.0.weight"][0, 0] = torch.nan
    save_file(tensors, copy / "weights.safetensors")
    signed(copy)
    with pytest.raises(ValueError, match="NaN"):
        load_detector(copy)


def test_other_layers_are_refused_with_advice(folders, tmp_path):
    copy = shutil.copytree(folders["vae"], tmp_path / "copy")
    tensors = load_file(copy / "weights.safetensors")
    del tensors["encoder.0.weight"]
    save_file(tensors, copy / "weights.safetensors")
    signed(copy)
    with pytest.raises(ValueError, match="written by .* Missing key.* Train it again"):
        load_detector(copy)


def test_a_background_of_another_training_is_refused(folders, tmp_path):
    copy, other = (tmp_path / n for n in ("copy", "other"))
    shutil.copytree(folders["vae"], copy)
    shutil.copytree(folders["pca"], other)
    shutil.copy(other / "background.safetensors", copy)
    with pytest.raises(ValueError, match="another training"):
        load_detector(copy)


def test_a_second_detector_in_a_folder_leaves_nothing_of_the_first(folders, tmp_path):
    copy = shutil.copytree(folders["vae"], tmp_path / "copy")
    pca = make_detector("pca")
    pca.fit(TRAIN, progress=False)  # no held-out jets, no epochs
    pca.save(copy)
    assert {p.name for p in copy.iterdir()} == {"config.json", "weights.safetensors"}
    again = load_detector(copy)
    assert again.name == "pca" and not len(again.history)
    with pytest.raises(ValueError, match="no held-out background"):
        again.p_value(TEST)


def test_an_interrupted_second_save_is_refused(folders, tmp_path, monkeypatch):
    copy = shutil.copytree(folders["vae"], tmp_path / "copy")
    pca = make_detector("pca")
    pca.fit(TRAIN, HELD_OUT, progress=False)

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("jet_anomaly.detect.background.Background.save", killed)
    with pytest.raises(KeyboardInterrupt):
        pca.save(copy)
    with pytest.raises(ValueError, match="interrupted"):
        load_detector(copy)


LIMITED = """
import resource, sys
import torch
from jet_anomaly.detect.detector import load_detector
for whole in sys.argv[1].split():
    load_detector(whole)  # imports are paid
for small in sys.argv[2:]:
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        load_detector(small)
    except ValueError as e:
        print(e)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used) / 1024)
"""
LARGE = [
    ("vae", {"hidden": [200_000, 200_000]}),
    ("vae", {"n_constituents": 10**9}),
    ("isolation_forest", {"trees": 10**12}),
    ("pca", {"n_constituents": 10**6, "components": 1000}),
]


def test_a_small_file_takes_little_memory(folders, tmp_path):
    copies = [
        shutil.copytree(folders[name], tmp_path / str(i)) for i, (name, _) in enumerate(LARGE)
    ]
    for copy, (_, options) in zip(copies, LARGE):
        said = json.loads((copy / "config.json").read_text())
        said["config"] |= options
        (copy / "config.json").write_text(json.dumps(said))
    wholes = " ".join(str(folders[name]) for name in NAMES)
    lines = python("-c", LIMITED, wholes, *copies).splitlines()[-2 * len(LARGE) :]
    for message, grown in zip(lines[::2], lines[1::2]):
        assert "much larger" in message and float(grown) < 100, (message, grown)


def test_a_newer_format_asks_for_an_upgrade(tmp_path):
    copy = shutil.copytree(ROOT / "tests/fixtures/vae_0.1.0", tmp_path / "copy")
    load_detector(copy)
    said = json.loads((copy / "config.json").read_text()) | {"format": 3}
    (copy / "config.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match="upgrade"):
        load_detector(copy)
