"""Jet files that are damaged or crafted: each ends in a ValueError that names the file, in the library and in the reader."""

import shutil

import h5py
import numpy as np
import pytest

from jet_anomaly.data.read import read, read_to
from jet_anomaly.jet.jets import Jets, count_jets


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    rng = np.random.default_rng(0)
    pt, (eta, phi) = rng.exponential(20, (50, 8)), rng.normal(0, 0.3, (2, 50, 8))
    p4 = np.stack([pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], -1)
    jets = Jets.from_constituents(p4, labels=np.zeros(50, int))
    return jets.to_hdf5(tmp_path_factory.mktemp("good") / "jets.h5")


def put(name, data=None, **how):
    "Exchange a data set."

    def change(file):
        if name in file:
            del file[name]
        if callable(data):
            file[name] = data(file)
        else:
            file.create_dataset(name, data=data, **how)

    return change


def attribute(name, value):
    return lambda file: file.attrs.__setitem__(name, value)


def group(name):
    def change(file):
        if name in file:
            del file[name]
        file.create_group(name)

    return change


def virtual(file):
    layout = h5py.VirtualLayout((50,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (50,))
    file.create_virtual_dataset("observables/x", layout)


FAULTS = {
    "p4 is a group": group("p4"),
    "mask is a group": group("mask"),
    "features is a data set": put("features", np.ones(50)),
    "observables is a data set": put("observables", np.ones(50)),
    "a group among observables": put("observables/x/y", np.ones(50)),
    "soft link": put("observables/x", lambda f: h5py.SoftLink("/observables")),
    "soft link to itself": put("observables/x", lambda f: h5py.SoftLink("/observables/x")),
    "soft link to nothing": put("observables/x", lambda f: h5py.SoftLink("/nothing")),
    "loop of groups": put("observables/x", lambda f: f["/"]),
    "external link": put("observables/x", lambda f: h5py.ExternalLink("/etc/passwd", "/")),
    "external storage": put(
        "observables/x", shape=(8,), dtype="u1", external=[("/etc/passwd", 0, 8)]
    ),
    "virtual": virtual,
    "version is text": attribute("version", "x"),
    "version is a list": attribute("version", [1, 2]),
    "format is a list": attribute("format", [1, 2]),
    "a newer version": attribute("version", 99),
    "meta is deep": attribute("meta", "[" * 20_000),
    "meta is a number": attribute("meta", 5),
    "meta is a list": attribute("meta", "[1]"),
    "no meta": lambda file: file.attrs.__delitem__("meta"),
    "complex p4": put("p4", np.ones((50, 8, 4), complex)),
    "text p4": put("p4", [b"a"] * 50),
    "scalar p4": put("p4", 1.0),
    "empty p4": put("p4", h5py.Empty("f")),
    "10¹² jets": put("p4", shape=(10**12, 8, 4), dtype="f4", chunks=(1000, 8, 4)),
    "10¹⁰ constituents": put("p4", shape=(50, 10**10, 4), dtype="f4", chunks=(50, 8, 4)),
    "lists": put("observables/x", shape=(50,), dtype=h5py.vlen_dtype("f4")),
    "text observables": put("observables/x", [b"a"] * 50),
    "compound observables": put("observables/x", np.zeros(50, [("a", "f4")])),
    "complex observables": put("observables/mass", np.ones(50, complex)),
    "NaN labels": put("labels", np.full(50, np.nan)),
    "huge labels": put("labels", np.full(50, 2**64 - 1, np.uint64)),
    "fewer labels": put("labels", np.zeros(40, int)),
    "energy below the momentum": lambda file: file["p4"].__setitem__(
        (..., 0), file["p4"][..., 0] / 2
    ),
    "NaN": lambda file: file["p4"].__setitem__((3, 0, 0), np.nan),
    "mask of numbers": put("mask", np.full((50, 8), 7, np.int8)),
    "mask of another width": put("mask", np.ones((50, 9), bool)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_a_value_error_with_the_name(good, tmp_path, name):
    path = tmp_path / "changed.h5"
    shutil.copy(good, path)
    with h5py.File(path, "r+") as file:
        FAULTS[name](file)
    for reader in (
        Jets.from_hdf5,
        lambda p: list(Jets.blocks(p, 7)),
        lambda p: read(p, progress=False),
    ):
        with pytest.raises(ValueError, match="changed.h5"):
            reader(path)


def test_names_that_are_paths_are_not_written(good, tmp_path):
    np.savez(tmp_path / "mine.npz", p4=Jets.from_hdf5(good).p4, **{"../x": np.ones(50)})
    with pytest.raises(ValueError, match="without slash"):
        read_to(tmp_path / "out.h5", tmp_path / "mine.npz", progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.npz"]


def test_wide_jets_are_read_in_smaller_blocks(tmp_path, monkeypatch):
    p4 = np.zeros((6, 40, 4))
    p4[:, :3] = 10, 6, 8, 0
    path = Jets.from_constituents(p4).to_hdf5(tmp_path / "wide.h5")
    monkeypatch.setattr("jet_anomaly.core.hdf5.BLOCK", 2 * 40 * 17 + 100)
    assert [len(b) for b in Jets.blocks(path, 5)] == [2, 2, 2] and count_jets(path) == 6
