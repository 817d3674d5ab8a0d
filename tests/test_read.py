"""The readers, on files the tests write and on real ones where they are at hand; bad input; ten thousand ways to break a file, of which some hundreds are tried."""

import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import awkward as ak
import h5py
import numpy as np
import pytest
import uproot
from helpers import ROOT

from jet_anomaly.data.columns import column_blocks, open_columns
from jet_anomaly.data.formats import FORMATS, contents, recognise
from jet_anomaly.data.frames import write_frame
from jet_anomaly.data.numpy_files import numpy_blocks
from jet_anomaly.data.pfnano import MULTICHANNEL
from jet_anomaly.data.pickles import multichannel_blocks, unpickle_frame
from jet_anomaly.data.read import read, read_blocks, read_to
from jet_anomaly.data.source import CutFlow
from jet_anomaly.data.toys import (
    TOYS,
    VARIANTS,
    toy_delphes,
    toy_jetclass,
    toy_jetnet,
    toy_jets,
    toy_lhco,
    toy_lhco_features,
    toy_pfnano,
    toy_toptagging,
    toy_vaejet,
)
from jet_anomaly.jet.jets import Jets, count_jets, kinematic_observables

DOCUMENTED = (ValueError, KeyError, FileNotFoundError)
fastjet = pytest.mark.skipif(
    not __import__("importlib.util").util.find_spec("fastjet"), reason="needs the extra simulate"
)
OTHER = {
    "pfnano embedded": lambda p: toy_pfnano(p, 20, True),
    "jetclass2": lambda p: toy_jetclass(p, 200, True),
    "vaejet ragged": lambda p: toy_vaejet(p, 20, None),
    "vaejet jet1": lambda p: toy_vaejet(p, 20, "jet1"),
    "lhco table": lambda p: toy_lhco(p, 20, True),
    "toptagging fixed": lambda p: toy_toptagging(p, 20, table=False),
}
ALL = [pytest.param(n, marks=fastjet) if n == "lhco" else n for n in TOYS]


def trust(name):
    return {"trusted": True} if name.startswith("multichannel") else {}


@pytest.fixture(scope="session")
def toys(tmp_path_factory):
    "One small file of every kind, and of the variants."
    here = tmp_path_factory.mktemp("toys")
    files = {n: toy(here / f"{n}.dat", 20) for n, toy in TOYS.items()}
    return files | {n: toy(here / f"{n}.dat") for n, toy in OTHER.items()}


def real(path):
    "A real file, or a skip with the reason."
    folder = Path(os.environ.get("JET_ANOMALY_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / path).exists():
        pytest.skip(
            f"the real file {path} is not at hand: set JET_ANOMALY_TEST_DATA to the folder that holds it"
        )
    return folder / path


# every format


@pytest.mark.parametrize("name", ALL)
def test_a_format_is_recognised_and_read_in_blocks_of_any_size(toys, name):
    assert recognise(toys[name]) == name
    whole = read(toys[name], progress=False, **trust(name))
    blocks = list(read_blocks(toys[name], size=3, **trust(name)))
    assert len(blocks) > 3 and sum(map(len, blocks)) == len(whole) and whole.meta["format"] == name
    for k, v in whole.observables.items():
        np.testing.assert_array_equal(
            np.concatenate([b.observables[k] for b in blocks]), v, err_msg=k
        )
    start = 0
    for b in blocks:
        np.testing.assert_array_equal(whole.p4[start : start + len(b), : b.p4.shape[1]], b.p4)
        start += len(b)


@pytest.mark.parametrize("name", ALL)
def test_constituents_sum_to_the_jet(toys, name):
    jets = read(toys[name], progress=False, **trust(name))
    found = kinematic_observables(jets.p4, jets.mask)
    np.testing.assert_allclose(found["pt"], jets.observables["pt"], rtol=2e-3)
    if name != "multichannel":
        np.testing.assert_allclose(found["mass"], jets.observables["mass"], rtol=5e-3, atol=0.2)


@pytest.mark.parametrize(
    "name",
    [
        "pfnano embedded",
        "jetclass2",
        "vaejet ragged",
        "vaejet jet1",
        "toptagging fixed",
        pytest.param("lhco table", marks=fastjet),
    ],
)
def test_variants_of_a_layout(toys, name):
    kind = name.split()[0].removesuffix("2")
    assert recognise(toys[name]) == kind
    assert len(read(toys[name], progress=False)) >= 20
    if name == "pfnano embedded":
        np.testing.assert_array_equal(
            read(toys[name], progress=False).p4, read(toys["pfnano"], progress=False).p4
        )
    if name == "toptagging fixed":
        np.testing.assert_array_equal(
            read(toys[name], progress=False).p4, read(toys["toptagging"], progress=False).p4
        )
    if name == "jetclass2":
        jets = read(toys[name], progress=False)
        assert ((jets.labels == 0) == (jets.observables["class"] >= 161)).all() and (
            jets.labels == 0
        ).any()


def test_read_to_writes_what_read_reads_and_leaves_nothing_half_written(toys, tmp_path):
    again = toy_delphes(tmp_path / "again.root", 20, seed=1)
    out = read_to(
        tmp_path / "jets.h5",
        [toys["delphes"], again],
        size=7,
        n_constituents=12,
        leading=1,
        progress=False,
    )
    jets, back = (
        read([toys["delphes"], again], n_constituents=12, leading=1, progress=False),
        Jets.from_hdf5(out),
    )
    np.testing.assert_array_equal(back.p4, jets.p4)
    assert (
        back.meta["cutflow"] == jets.meta["cutflow"]
        and len(back.meta["sources"]) == 2
        and len(np.unique(back.observables["event"])) == 40
    )
    assert CutFlow(back.meta["cutflow"])["jets", "the leading jet"] == 40 == count_jets(out)
    with pytest.raises(ValueError, match="9000 < pT"):
        read_to(tmp_path / "none.h5", toys["delphes"], pt=(9000, None), progress=False)
    broken = tmp_path / "broken.root"
    broken.write_bytes(toys["delphes"].read_bytes()[:-3000])
    with pytest.raises(ValueError, match="broken.root"):
        read_to(tmp_path / "none.h5", [toys["delphes"], broken], progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.root", "broken.root", "jets.h5"]
    np.testing.assert_array_equal(
        read(out, progress=False).observables["mjj"], back.observables["mjj"]
    )


def test_cuts_act_as_on_whole_arrays(toys):
    jets = read(toys["delphes"], progress=False)
    o = jets.observables
    cut = read(toys["delphes"], pt=(600, 800), eta=1.2, progress=False)
    keep = (o["pt"] > 600) & (o["pt"] <= 800) & (np.abs(o["eta"]) <= 1.2)
    np.testing.assert_array_equal(cut.p4, jets.p4[keep])
    one = read(toys["delphes"], pt=(600, 800), eta=1.2, leading=1, mass=(100, None), progress=False)
    best = [
        max((i for i in np.flatnonzero(keep) if o["event"][i] == e), key=lambda i: o["pt"][i])
        for e in np.unique(o["event"][keep])
    ]
    np.testing.assert_array_equal(
        one.observables["pt"], o["pt"][[i for i in best if o["mass"][i] > 100]]
    )
    assert read(toys["pfnano"], **MULTICHANNEL, progress=False).meta["selection"]["leading"] == 1
    assert (read(toys["jetnet"], label=3, progress=False).labels == 3).all()


def test_dijet_mass_is_that_of_the_two_leading_jets(toys):
    import vector

    jets = read(toys["vrnn"], progress=False)
    v = vector.array({k: jets.observables[k].astype(float) for k in ("pt", "eta", "phi", "mass")})
    np.testing.assert_allclose(
        jets.observables["mjj"], np.repeat((v[::2] + v[1::2]).mass, 2), rtol=1e-5
    )


def test_substructure_is_added_where_it_lacks(toys):
    from jet_anomaly.jet.substructure import stored_observables

    bare, jets = (
        read(toys["jetnet"], progress=False),
        read(toys["jetnet"], substructure=True, progress=False, size=7),
    )
    for k, v in stored_observables(bare.p4, bare.mask).items():
        np.testing.assert_allclose(jets.observables[k], v, rtol=1e-5, err_msg=k)
    own = read(toys["jetclass"], substructure=True, progress=False)
    np.testing.assert_array_equal(own.observables["tau1"], 0.5)  # the file's own is kept


def test_memory_stays_that_of_a_block(tmp_path):
    "Peak memory of streaming a file ten times as large is the same."

    def peak(n):
        path = toy_jetnet(tmp_path / f"{n}.h5", n)
        tracemalloc.start()
        total = sum(len(b) for b in read_blocks(path, size=200))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert total == n
        return found

    peak(1000)
    assert peak(10_000) < 1.3 * peak(1000)


# Delphes


def write_tree(path, tree, data):
    with uproot.recreate(path) as f:
        f.mktree(
            tree,
            {k: str(ak.Array(v).type).split(" * ", 1)[1] for k, v in data.items()},
            counter_name=lambda n: n.replace(".", "_") + "_n",
        ).extend(data)
    return path


def delphes(tracks, refs, counts, **more):
    "A Delphes file of one kind of object: ids and pT per event, references and their number per jet."
    ids, pt = tracks
    like = ak.full_like(ak.Array(pt), 0, dtype=np.float32)
    jet = ak.full_like(ak.Array(counts), 500, dtype=np.float32)
    f32 = lambda x: ak.values_astype(ak.Array(x), np.float32)
    i32 = lambda x: ak.values_astype(ak.Array(x), np.int32)
    return {
        "EFlowTrack.fUniqueID": i32(ids),
        "EFlowTrack.PT": f32(pt),
        "EFlowTrack.Eta": like,
        "EFlowTrack.Phi": like,
        "FatJet.PT": jet,
        "FatJet.Eta": jet * 0,
        "FatJet.Phi": jet * 0,
        "FatJet.Mass": jet * 0,
        "FatJet.Constituents": i32(refs),
        "FatJet.NConstituents": i32(counts),
    } | more


def test_references_are_masked_counted_and_never_dropped_in_silence(tmp_path):
    data = delphes(([[1 | 1 << 24, 2], [1]], [[10, 20], [40]]), [[2, 1, 9], [1]], [[2, 1], [1]])
    flow = CutFlow()
    jets = read(write_tree(tmp_path / "d.root", "Delphes", data), cutflow=flow, progress=False)
    np.testing.assert_allclose(
        np.hypot(jets.p4[..., 1], jets.p4[..., 2]), [[20, 10], [40, 0]], rtol=1e-6
    )
    assert (
        flow["references", "resolved"],
        flow["references", "unresolved"],
        flow["jets", "FatJet"],
        flow["jets", "with constituents"],
    ) == (3, 1, 3, 2)
    assert flow.rows["jets", "with constituents"][1] == 1


def test_energy_flow_comes_before_its_twins(tmp_path):
    data = delphes(([[5]], [[100.0]]), [[5]], [[1]])
    data |= {
        k.replace("EFlowTrack", "Track"): v * 2 if k.endswith("PT") else v
        for k, v in data.items()
        if k.startswith("EFlowTrack")
    }
    path = write_tree(tmp_path / "d.root", "Delphes", data)
    assert (
        read(path, progress=False).p4[0, 0, 0] == 100
        and read(path, constituents=["Track"], progress=False).p4[0, 0, 0] == 200
    )


def test_old_names_of_the_impact_parameter(tmp_path):
    one = ak.Array([[0.25]])
    data = delphes(
        ([[5]], [[100.0]]),
        [[5]],
        [[1]],
        **{
            "EFlowTrack.Dxy": one,
            "EFlowTrack.SDxy": one / 5,
            "EFlowTrack.Charge": ak.Array([[-1]]),
        },
    )
    jets = read(write_tree(tmp_path / "d.root", "Delphes", data), progress=False)
    assert (
        jets.features["d0"][0, 0] == np.float32(0.25)
        and jets.features["d0_err"][0, 0] == np.float32(0.05)
        and jets.features["charge"][0, 0] == -1
    )


def test_an_event_without_jets_and_a_file_without(tmp_path):
    ids, pt = ak.Array([[1], [1]]), ak.Array([[50.0], [60.0]])
    some = delphes((ids, pt), ak.Array([[], [1]]), ak.Array([[], [1]]))
    assert read(write_tree(tmp_path / "some.root", "Delphes", some), progress=False).observables[
        "event"
    ].tolist() == [1]
    none = delphes(
        (ids, pt),
        ak.values_astype(ak.Array([[], []]), np.int32),
        ak.values_astype(ak.Array([[], []]), np.int32),
    )
    with pytest.raises(ValueError, match="No jet of .* is left"):
        read(write_tree(tmp_path / "none.root", "Delphes", none), progress=False)


def test_two_cycles_take_the_newest(tmp_path):
    with uproot.recreate(tmp_path / "c.root") as f:
        for n in (1, 3):
            f.mktree("Events", {"x": "int32"}).extend({"x": np.arange(n, dtype=np.int32)})
    with uproot.open(tmp_path / "c.root") as f:
        assert len(f.keys()) == 2
    with open_columns(tmp_path / "c.root", "Events") as tree:
        assert next(column_blocks(tree, ["x"], 10, CutFlow()))[1]["x"].tolist() == [0, 1, 2]


def test_an_unreadable_branch_that_is_not_needed_does_no_harm(tmp_path):
    "A basket that cannot be decompressed stops only who asks for it."
    path = write_tree(
        tmp_path / "b.root",
        "Events",
        {"good": np.arange(1000, dtype=np.int32), "bad": np.arange(1000, dtype=np.float64)},
    )
    with uproot.open(path) as f:
        where = f["Events"]["bad"].member("fBasketSeek")[0]
    raw = bytearray(path.read_bytes())
    raw[where + 60 : where + 160] = b"\xff" * 100
    path.write_bytes(raw)
    with open_columns(path, "Events") as tree:
        assert len(next(column_blocks(tree, ["good"], 5000, CutFlow()))[1]["good"]) == 1000
        with pytest.raises(ValueError, match="b.root is damaged"):
            next(column_blocks(tree, ["bad"], 5000, CutFlow()))


# bad input


@pytest.mark.parametrize("name", ALL)
def test_truncated_and_empty_files(toys, name, tmp_path):
    raw = toys[name].read_bytes()
    for n in (0, 1, 10, len(raw) // 3, 2 * len(raw) // 3):
        path = tmp_path / f"cut{toys[name].suffix}"
        path.write_bytes(raw[:n])
        with pytest.raises(ValueError, match="cut"):
            read(path, name, progress=False, **trust(name))


def test_missing_things_are_named_with_what_is_there(toys, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read(tmp_path / "no.root", progress=False)
    with pytest.raises(FileNotFoundError, match="No file matches"):
        read(str(tmp_path / "*.root"), progress=False)
    with pytest.raises(ValueError, match="folder"):
        read(tmp_path, progress=False)
    with pytest.raises(KeyError, match="its trees: .*Events"):
        read(toys["pfnano"], "delphes", progress=False)
    with pytest.raises(KeyError, match="collection 'Jet'.*FatJet"):
        read(toys["delphes"], collection="Jet", progress=False)
    with pytest.raises(KeyError, match="no branch 'Tower.fUniqueID'"):
        read(toys["delphes"], constituents=["Tower"], progress=False)
    with pytest.raises(KeyError, match="data set 'particle_features'.*PFCands"):
        read(toys["aspen"], "jetnet", progress=False)
    with pytest.raises(KeyError, match="frames \\['df'\\]"):
        read(toys["lhco_features"], key="table", progress=False)
    with pytest.raises(KeyError, match="no columns .*pxj1"):
        read(toys["lhco_features"], "toptagging", progress=False)
    with pytest.raises(KeyError, match="known: jets, delphes"):
        read(toys["lhco"], "lhc", progress=False)
    with pytest.raises(ValueError, match="no option puppy; it has collection"):
        read(toys["pfnano"], puppy=True, progress=False)
    with pytest.raises(ValueError, match="which jets are of one event"):
        read(toys["jetnet"], leading=1, progress=False)


def test_nan_negative_energies_and_empty_jets_are_cut_and_counted(tmp_path):
    p4 = np.zeros((5, 3, 4), np.float32)
    p4[:, 0] = [500, 300, 400, 0]
    p4[1, 0, 1], p4[2, 0, 0], p4[3] = np.nan, -1, 0
    p4[4, 1] = [np.inf, 1, 1, 1]
    np.save(tmp_path / "x.npy", p4)
    flow = CutFlow()
    jets = read(tmp_path / "x.npy", cutflow=flow, progress=False)
    assert (
        len(jets) == 1
        and flow.rows["jets", "four-vectors finite, E ≥ 0"] == [2, 3]
        and flow.rows["jets", "with constituents"] == [1, 1]
    )


def test_wrong_units_are_flagged_and_converted(tmp_path):
    path = toy_lhco_features(tmp_path / "f.h5", unit="TeV")
    with pytest.warns(UserWarning, match="in TeV"):
        read(path, progress=False)
    right = read(path, unit="TeV", progress=False)
    with h5py.File(
        path, "a"
    ) as f:  # momenta in GeV, masses in TeV: a mass of 0.1 for a jet of a TeV
        names, values = [n.decode() for n in f["df/block0_items"]], f["df/block0_values"][:]
        values[:, [names.index(n) for n in names if n.startswith("p")]] *= 1000
        f["df/block0_values"][:] = values
    with pytest.warns(UserWarning, match="mass in another unit"):
        read(path, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(
            read(path, mass_unit="TeV", progress=False).observables["mass"],
            right.observables["mass"],
            rtol=1e-6,
        )
    with pytest.raises(ValueError, match="MeV"):
        read(path, unit="eV", progress=False)


def test_labels_may_be_missing(toys, tmp_path):
    assert read(toys["jetnet"], progress=False).labels is None
    path = write_frame(
        tmp_path / "t.h5",
        "table",
        [
            (
                [f"{c}_{i}" for i in range(2) for c in ("E", "PX", "PY", "PZ")],
                np.tile(np.float32([5, 3, 4, 0]), (3, 2)),
            )
        ],
    )
    assert read(path, progress=False).labels is None
    with uproot.recreate(tmp_path / "j.root") as f:
        one = ak.Array([[600.0]])
        f.mktree(
            "tree",
            {
                "part_px": "var * float32",
                "part_py": "var * float32",
                "part_pz": "var * float32",
                "part_energy": "var * float32",
                "jet_pt": "float32",
                "jet_eta": "float32",
                "jet_phi": "float32",
            },
        ).extend(
            {
                "part_px": one,
                "part_py": one * 0,
                "part_pz": one * 0,
                "part_energy": one,
                "jet_pt": np.float32([600]),
                "jet_eta": np.float32([0]),
                "jet_phi": np.float32([0]),
            }
        )
    assert read(tmp_path / "j.root", progress=False).labels is None


def test_links_that_point_outside_are_counted(tmp_path):
    path = toy_pfnano(tmp_path / "p.root", 3)
    with uproot.open(path) as f:
        data = {k: f["Events"][k].array() for k in f["Events"].keys() if not k.startswith("n")}
    index = ak.to_list(data["FatJetPFCands_pFCandsIdx"])
    index[0][0], index[1][1] = -1, 10_000
    data["FatJetPFCands_pFCandsIdx"] = ak.values_astype(ak.Array(index), np.int32)
    flow = CutFlow()
    read(write_tree(tmp_path / "q.root", "Events", data), cutflow=flow, progress=False)
    assert flow.rows["candidates", "in jets"][1] == 2


def test_filters_that_are_not_installed_are_named(tmp_path):
    code = """
import sys; sys.modules["hdf5plugin"] = None
import h5py
from jet_anomaly.data import source
h5py.h5z.filter_avail = lambda code: code != h5py.h5z.FILTER_DEFLATE
source.h5py.h5z.filter_avail = h5py.h5z.filter_avail
try: source.dataset(h5py.File(sys.argv[1])["df"], "block0_values")
except ValueError as e: print(e)
"""
    path = toy_lhco_features(tmp_path / "f.h5")
    said = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, cwd=ROOT, timeout=60
    ).stdout
    assert "needs a plug-in: pip install 'jet_anomaly[read]'" in said


# pickles

ATTACKS = [
    b"cos\nmkdir\n(V{}\ntR.",
    b"cbuiltins\nexec\n(Vopen('{}','w')\ntR.",
    b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x08touch {}\x85R.",
    b"csubprocess\nPopen\n((lVtouch\naV{}\natR.",
    b"cnumpy\nsave\n(V{}\nI1\ntR.",
    b"cpandas\nread_pickle\n(V{}\ntR.",
    b"cpandas.io.common\nos.mkdir\n(V{}\ntR.",
    b"(V{}\nios\nmkdir\n.",
    b"c__builtin__\ngetattr\n(cos\nVmkdir\ntR.",
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a[:20].decode("latin1").split("\n")[0])
def test_a_pickle_runs_nothing(attack, tmp_path):
    target, path = tmp_path / "t", tmp_path / "a.pkl"
    text = str(target).encode()
    attack = (
        attack.replace(b"\x8c\x08touch {}", b"\x8c" + bytes([6 + len(text)]) + b"touch " + text)
        if b"\x8c\x08touch" in attack
        else attack.replace(b"{}", text)
    )
    path.write_bytes(attack)
    with pytest.raises(ValueError, match="refused|damaged"):
        unpickle_frame(path, trusted=True)
    with pytest.raises(ValueError, match="trusted=True"):
        read(path, "multichannel", progress=False)
    assert not target.exists()


def test_pickles_of_pandas_itself(tmp_path):
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pd.DataFrame(
        {
            "pt": [[0.5, 0.25], [1.0]],
            "eta": [[0.0, 6.3], [0.0]],
            "phi": [[0.1, 0.0], [0.0]],
            "n": [1, 2],
        }
    )
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        frame.to_pickle(tmp_path / "f.pkl", protocol=protocol)
        found = unpickle_frame(tmp_path / "f.pkl", trusted=True)
        assert {k: list(v) for k, v in found.items()} == {k: list(v) for k, v in frame.items()}
        jets = next(multichannel_blocks(tmp_path / "f.pkl", CutFlow(), trusted=True))
        assert (
            abs(
                jets.observables["phi"][0]
                - np.arctan2(0.25 * np.sin(6.3), 0.5 + 0.25 * np.cos(6.3))
            )
            < 1e-5
        )  # column eta is an unwrapped Δφ


def test_numpy_files_are_not_unpickled(tmp_path):
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="pickle"):
        next(numpy_blocks(tmp_path / "o.npy", CutFlow()))
    np.save(tmp_path / "f.npy", np.asfortranarray(np.ones((4, 3, 4))))
    with pytest.raises(ValueError, match="Fortran"):
        next(numpy_blocks(tmp_path / "f.npy", CutFlow()))


# a fuzz test: files with bytes changed, pieces cut out, swapped or repeated


def mutated(raw, rng):
    raw = bytearray(raw)
    kind = rng.integers(5)
    if kind == 0:
        del raw[rng.integers(len(raw)) :]
    if kind == 1:
        for i in rng.integers(0, len(raw), rng.integers(1, 30)):
            raw[i] = rng.integers(256)
    if kind == 2:
        i = rng.integers(0, len(raw) - 8)
        raw[i : i + 4] = struct.pack(">I", int(rng.choice([0, 1, 2**31 - 1, 2**32 - 1, 255])))
    if kind == 3:
        i, n = rng.integers(0, len(raw)), rng.integers(1, 200)
        del raw[i : i + n]
    if kind == 4:
        i, j, n = *rng.integers(0, len(raw), 2), rng.integers(1, 300)
        raw[i : i + n] = raw[j : j + n]
    return bytes(raw)


FUZZ = """
import sys, warnings
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
from test_read import DOCUMENTED, MUTATIONS, mutated, trust
from jet_anomaly.data.read import read
warnings.simplefilter("ignore")
toys, folder = Path(sys.argv[2]), Path(sys.argv[3])
for name, n in MUTATIONS.items():
    source = next(toys.glob(f"{name}.*"))
    raw, rng, path = source.read_bytes(), np.random.default_rng(n), folder / f"m{source.suffix}"
    for i in range(n):
        path.write_bytes(mutated(raw, rng))
        print(name, i, flush=True)
        try: read(path, None if i % 4 == 0 else name, progress=False, **trust(name))
        except DOCUMENTED: pass
"""
# not among them: ragged HDF5, where a damaged heap sends the HDF5 library itself into an endless loop
MUTATIONS = {
    "delphes": 45,
    "pfnano": 45,
    "jetclass": 45,
    "lhco_features": 60,
    "toptagging": 70,
    "jetnet": 70,
    "aspen": 45,
    "vrnn": 40,
    "vaejet": 60,
    "multichannel": 20,
    "numpy": 60,
}


def test_broken_files_meet_documented_errors_only(toys, tmp_path):
    "In a process of its own: a file library may crash the interpreter, and that would be seen here."
    assert sum(MUTATIONS.values()) >= 500
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, ROOT / "tests", toys["delphes"].parent, tmp_path],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=500,
    )
    assert done.returncode == 0, (
        f"mutation {done.stdout.splitlines()[-1:]}: exit {done.returncode}\n{done.stderr[-3000:]}"
    )
    assert len(done.stdout.splitlines()) == sum(MUTATIONS.values())


# real files


def counts(path, **options):
    flow = CutFlow()
    return read(real(path), cutflow=flow, progress=False, **options), flow


def test_real_delphes_with_fat_jets():
    jets, flow = counts("delphes_fatjet/delphes.root")
    assert (
        len(jets),
        flow["references", "resolved"],
        flow["references", "unresolved"],
        flow["events", "read"],
    ) == (6, 186, 0, 10)
    found = kinematic_observables(jets.p4, jets.mask)
    np.testing.assert_allclose(found["pt"], jets.observables["pt"], rtol=1e-4)
    np.testing.assert_allclose(found["mass"], jets.observables["mass"], rtol=1e-3)
    assert (jets.observables["tau2"] <= jets.observables["tau1"]).all()
    small, flow = counts("delphes_fatjet/delphes.root", collection="GenJet")
    assert (
        len(small) == 77
        and flow["references", "unresolved"] == 0
        and np.isnan(small.observables["tau1"]).all()
    )
    with pytest.raises(ValueError, match="unresolved *186"):
        counts("delphes_fatjet/delphes.root", constituents=["Tower"])


def test_real_delphes_with_a_duplicate_branch():
    jets, flow = counts("delphes_ttbar/uproot-issue513.root")
    assert (len(jets), flow["references", "resolved"], flow["references", "unresolved"]) == (
        60,
        636,
        0,
    ) and jets.meta["collection"] == "Jet"
    ratio = kinematic_observables(jets.p4, jets.mask)["pt"] / jets.observables["pt"]
    assert (ratio > 0.85).all() and (ratio < 1).all()  # calibrated after the clustering


def test_real_pfnano():
    jets, flow = counts("pfnano/pfnano.root", puppi=True)
    assert (len(jets), flow["candidates", "in jets"]) == (24, 1076)
    assert (
        set(np.unique(jets.features["pdgid"])) >= {22, 130, 211, -211}
        and (jets.features["d0_err"][jets.features["charge"] == 0] == 0).all()
    )
    assert (
        len(
            counts(
                "pfnano/pfnano.root",
                pt=(200, None),
                eta=2.0,
                lepton_veto=20.0,
                match="GenJetAK8",
                leading=1,
            )[0]
        )
        <= 10
    )
    with pytest.raises(KeyError, match="LHE_HT"):
        counts("pfnano/pfnano.root", ht=(400, 500))
    with pytest.raises(ValueError, match="generated 6, 24 within 0.4 *0 *24"):
        counts("pfnano/pfnano.root", match=[6, 24])  # the sample has neither


def test_real_jetclass2():
    jets, _ = counts("jetclass2/JetClassII_example.root")
    assert len(jets) == 100 and (jets.labels == 0).sum() == 21
    np.testing.assert_allclose(
        kinematic_observables(jets.p4, jets.mask)["pt"], jets.observables["pt"], rtol=1e-5
    )


@fastjet
def test_real_lhco():
    pytest.importorskip("hdf5plugin", reason="needs the extra read")
    jets, flow = counts("lhco_rnd/events_anomalydetection_tiny.h5", leading=1)
    assert flow["events", "read"] == len(jets) == 1000 and np.bincount(jets.labels).tolist() == [
        907,
        93,
    ]
    assert abs(np.median(jets.observables["mjj"][jets.labels == 1]) - 3500) < 200


def test_real_vrnn_and_array_layouts():
    jets, flow = counts("vrnn_2prong/events_anomalydetection_VRNN_2Prong_Signal.hdf5", leading=2)
    assert flow["events", "read"] == 100 and len(jets) == 200
    assert abs(np.median(jets.observables["mjj"]) - 3500) < 200
    assert (
        len(counts("layouts/toptagging_60.h5")[0]) == 60
        and len(counts("layouts/jetnet_30.hdf5")[0]) == 940
    )


def test_real_pickle():
    with pytest.raises(ValueError, match="trusted"):
        counts("multichannel_pickle/background.pkl")
    jets, _ = counts("multichannel_pickle/background.pkl", trusted=True)
    assert (
        len(jets) == 100
        and set(np.unique(jets.features["charge"])) == {-1, 0, 1}
        and np.abs(jets.observables["eta"]).max() < 0.2
    )


# what must not pass in silence


def plain(n=40, seed=1, width=12):
    "Padded four-vectors and their mask."
    p4, mask = toy_jets(n, width=width, seed=seed)
    return np.where(mask[..., None], p4, 0).astype(np.float32), mask


def test_four_vectors_that_are_none_are_refused_and_the_layout_is_named(tmp_path):
    p4, _ = plain()
    path = tmp_path / "x.npy"
    np.save(path, p4[..., [1, 2, 3, 0]])
    with pytest.raises(ValueError, match="order='px,py,pz,E'"):
        read(path, progress=False)
    np.testing.assert_array_equal(
        read(path, order="px,py,pz,E", progress=False).p4.sum(1), plain_sum(p4)
    )
    np.save(path, p4 * np.float32([0.5, 1, 1, 1]))
    with pytest.raises(ValueError, match="40 of 40 jets"):
        read(path, progress=False)
    p4[0, 0, 0] /= 2
    np.save(path, p4)
    with pytest.warns(UserWarning, match="1 of 40 jets"):
        jets = read(path, progress=False)
    assert len(jets) == 39 and CutFlow(jets.meta["cutflow"]).rows["jets", "E ≥ |p|"] == [39, 1]


def plain_sum(p4):
    "Sums of constituents in the order of falling pT, as `Jets` holds them."
    return Jets.from_constituents(p4).p4.sum(1)


@pytest.mark.parametrize("fill", [np.nan, np.inf, -99, -999])
def test_padding_by_a_sentinel_is_padding_where_it_trails(tmp_path, fill):
    p4, mask = plain()
    want = Jets.from_constituents(p4, mask)
    x = p4.copy()
    x[~mask] = fill
    np.save(tmp_path / "x.npy", x)
    with h5py.File(tmp_path / "x.h5", "w") as f:
        f["constituents"] = x
    for name in "x.npy", "x.h5":
        with pytest.warns(UserWarning, match="read as padding"):
            np.testing.assert_array_equal(read(tmp_path / name, progress=False).p4, want.p4)
    x[3, 1] = fill  # in the middle
    np.save(tmp_path / "x.npy", x)
    with pytest.warns(UserWarning, match="1 of 40 jets|read as padding"):
        assert len(read(tmp_path / "x.npy", progress=False)) == 39


def test_blocks_of_any_size_and_files_in_any_split_give_the_same(tmp_path):
    p4, _ = plain(30)
    numbers = np.array([3, 2**63 + 1, 2**63 + 2, 9, 10, 11], np.uint64)
    event = np.repeat(numbers, [5, 1, 8, 6, 7, 3])
    weight, labels = np.linspace(-1, 2, 30), np.arange(30) % 3 - 0.0
    labels[4] = np.nan

    def save(name, rows):
        np.savez(
            tmp_path / f"{name}.npz",
            p4=p4[rows],
            event=event[rows],
            weight=weight[rows],
            y=labels[rows],
        )
        return tmp_path / f"{name}.npz"

    cuts = dict(pt=(500, None), leading=2, progress=False)
    whole = save("whole", slice(None))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want = read(whole, **cuts)
        own = read_to(tmp_path / "own.h5", whole, progress=False)
        assert "rank" in want.observables and len(want) < 30
        for size in range(1, 31):
            for path in (whole, own):
                got = read(path, size=size, **cuts)
                np.testing.assert_array_equal(got.p4[:, :10], want.p4[:, :10])
                for k in ("rank", "mjj", "event", "weight"):
                    np.testing.assert_array_equal(got.observables[k], want.observables[k])
                np.testing.assert_array_equal(got.labels, want.labels)
            if size < 30:
                assert [r for r in read(whole, size=size, **cuts).meta["cutflow"]] == want.meta[
                    "cutflow"
                ]
        for edge in (5, 6, 14, 20, 27):  # where an event ends
            split = read([save("a", slice(edge)), save("b", slice(edge, None))], **cuts)
            np.testing.assert_array_equal(split.p4, want.p4)
            np.testing.assert_array_equal(split.observables["mjj"], want.observables["mjj"])
            assert split.meta["cutflow"] == want.meta["cutflow"]
    assert want.observables["event"].dtype == np.uint64 and want.weight.dtype == np.float64


@pytest.mark.parametrize("name", ["delphes", "pfnano", "aspen", "vrnn", "vaejet ragged"])
def test_ranks_do_not_depend_on_the_block_size(toys, name):
    want = read(toys[name], progress=False, leading=1)
    for size in (1, 2, 3, 5, 8, 13, 19):
        got = read(toys[name], progress=False, leading=1, size=size)
        np.testing.assert_array_equal(got.observables["mjj"], want.observables["mjj"])
        assert got.meta["cutflow"] == want.meta["cutflow"]


def test_jets_of_an_event_that_stand_apart_are_still_ranked_together(tmp_path):
    p4, _ = plain(30)
    np.savez(tmp_path / "x.npz", p4=p4, event=np.arange(30) % 5)
    with pytest.warns(UserWarning, match="stand apart"):
        assert len(read(tmp_path / "x.npz", leading=1, size=3, progress=False)) == 5


def test_event_numbers_of_files_are_kept_apart(tmp_path):
    p4, _ = plain(4)
    for i, numbers in enumerate(([1, 1, 2, 2], [2, 2, 3, 3], [7, 7, 8, 8])):
        np.savez(tmp_path / f"{i}.npz", p4=p4, event=numbers)
    jets = read(str(tmp_path / "?.npz"), progress=False)
    assert len(np.unique(jets.observables["event"])) == 6
    np.savez(tmp_path / "3.npz", p4=p4, event=np.full(4, 2**63 - 1))
    np.savez(tmp_path / "4.npz", p4=p4, event=np.full(4, 2**63 - 1))
    with pytest.raises(ValueError, match="too large"):
        read([tmp_path / "3.npz", tmp_path / "4.npz"], progress=False)


def test_a_file_named_twice_is_read_once(toys, tmp_path):
    link = tmp_path / "link.root"
    link.symlink_to(toys["jetclass"])
    with pytest.warns(UserWarning, match="same file"):
        assert len(read([toys["jetclass"], link], progress=False)) == 20
    copy = tmp_path / "copy.root"
    copy.write_bytes(toys["jetclass"].read_bytes())
    with pytest.warns(UserWarning, match="copies"):
        assert len(read([toys["jetclass"], copy], progress=False)) == 40


def test_unknown_truth_is_never_background(tmp_path):
    data = uproot.open(toy_jetclass(tmp_path / "two.root", 12, True))["tree"].arrays()
    assert (read(tmp_path / "two.root", progress=False).labels >= 0).all()
    p4, _ = plain(4)
    for bad in ([0, 0.5, 1, 1], [-1, 1, 1, -1], [[1, 1], [0, 1], [1, 0], [1, 0]]):
        np.savez(tmp_path / "x.npz", p4=p4, labels=bad)
        with pytest.raises(ValueError, match="label"):
            read(tmp_path / "x.npz", progress=False)
        assert (read(tmp_path / "x.npz", progress=False, label=2).labels == 2).all()
    assert len(data) == 12
    np.savez(tmp_path / "x.npz", p4=p4, labels=[0, 1, 2, 1])
    assert len(read(tmp_path / "x.npz", keep_labels=1, progress=False)) == 2
    with pytest.raises(ValueError, match="no labels"):
        np.save(tmp_path / "x.npy", p4)
        read(tmp_path / "x.npy", keep_labels=1, progress=False)


def test_weights_are_read_where_formats_have_them(toys, tmp_path):
    np.testing.assert_array_equal(read(toys["numpy"], progress=False).weight, np.linspace(0, 1, 20))
    weight = ak.Array([[0.25], [-3.0]])
    data = delphes(
        ([[5], [5]], [[100.0], [90.0]]), [[5], [5]], [[1], [1]], **{"Event.Weight": weight}
    )
    jets = read(write_tree(tmp_path / "d.root", "Delphes", data), progress=False)
    np.testing.assert_array_equal(jets.weight, [0.25, -3])
    p4, _ = plain(3)
    np.savez(tmp_path / "w.npz", p4=p4, weights=[1, np.nan, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flow = CutFlow()
        read(tmp_path / "w.npz", cutflow=flow, progress=False)
    assert flow.rows["jets", "weight finite"] == [2, 1]


def test_undefined_ratios_are_those_of_one_prong(tmp_path):
    jets = Jets.from_constituents([[[100.0, 60, 80, 0]]] * 3)
    jets.observables |= {"tau21": np.float32([0, np.nan, 0.4]), "tau1": np.float32([0, 0, 1])}
    jets.observables["tau2"] = np.float32([0, 0, 0.4])
    back = read(jets.to_hdf5(tmp_path / "j.h5"), progress=False)
    np.testing.assert_array_equal(back.observables["tau21"], np.float32([1, 1, 0.4]))


def written(path):
    "Every array of a file, and what it says of itself."
    with h5py.File(path) as file:
        names = []
        file.visit(names.append)
        arrays = {n: file[n][()] for n in names if isinstance(file[n], h5py.Dataset)}
        return arrays, file.attrs["meta"]


def test_files_read_by_workers_are_those_read_by_one_process(toys, tmp_path):
    "Event numbers of the file's own and of its rows, numbers used twice, columns dropped, cuts, a damaged file."
    jets = read(toys["delphes"], progress=False)
    jets.observables["event"] = jets.observables["event"] + 5
    jets.to_hdf5(tmp_path / "a.h5")
    mixed = jets[np.random.default_rng(0).permutation(len(jets))]
    mixed.observables["extra"] = np.arange(len(jets))
    mixed.to_hdf5(tmp_path / "b.h5")
    (tmp_path / "cut.root").write_bytes(Path(toys["delphes"]).read_bytes()[:4000])
    files = [toys["delphes"], tmp_path / "a.h5", tmp_path / "cut.root", tmp_path / "b.h5"]
    how = dict(missing="drop", skip="damaged", leading=1, n_constituents=20, progress=False)
    found = []
    for name, executor in ("one", None), ("many", ThreadPoolExecutor(2)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            path = read_to(tmp_path / f"{name}.h5", files, executor=executor, **how)
        found.append((*written(path), {str(w.message) for w in caught}))
    (arrays, *said), (same, *again) = found
    assert said == again and arrays.keys() == same.keys()
    assert len(np.unique(arrays["observables/event"])) == len(arrays["p4"])
    for k, v in arrays.items():
        np.testing.assert_array_equal(v, same[k])
    with pytest.raises(KeyError, match="do not hold the same columns"):
        read_to(tmp_path / "no.h5", files[1::2], executor=ThreadPoolExecutor(1), progress=False)


def test_columns_that_not_all_files_hold(tmp_path):
    p4, _ = plain(4)
    np.savez(tmp_path / "a.npz", p4=p4, tau1=np.ones(4))
    np.savez(tmp_path / "b.npz", p4=p4[::-1])
    files = [tmp_path / "a.npz", tmp_path / "b.npz"]
    for order in (files, files[::-1]):
        with pytest.raises(KeyError, match="tau1.*missing='drop'"):
            read(order, progress=False)
        with pytest.warns(UserWarning, match="tau1"):
            assert len(read(order, missing="drop", progress=False)) == 8
        with pytest.warns(UserWarning, match="tau1"):
            out = read_to(tmp_path / "o.h5", order, missing="drop", progress=False)
        assert count_jets(out) == 8


def test_empty_and_damaged_files_in_a_list(toys, tmp_path):
    none, cut = tmp_path / "none.npz", tmp_path / "cut.npz"
    p4, _ = plain(4)
    np.savez(tmp_path / "a.npz", p4=p4)
    np.savez(none, p4=p4[:0])
    cut.write_bytes((tmp_path / "a.npz").read_bytes()[:-60])
    with pytest.warns(UserWarning, match="none.npz is left out"):
        assert len(read([tmp_path / "a.npz", none], progress=False)) == 4
    with pytest.raises(ValueError, match="none.npz holds no jets"):
        read([tmp_path / "a.npz", none], skip=None, progress=False)
    with pytest.raises(ValueError, match="holds no jets"):
        read(none, progress=False)
    with pytest.raises(ValueError, match="cut.npz"):
        read([tmp_path / "a.npz", cut], progress=False)
    with pytest.warns(UserWarning, match="cut.npz is left out"):
        assert len(read([tmp_path / "a.npz", cut], skip="damaged", progress=False)) == 4


@pytest.mark.parametrize(
    "head, word",
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<LesHouchesEvents version='3.0'>", "shower it first"),
        (b"\x1f\x8b\x08", "gunzip"),
        (b"\n<!DOCTYPE html>", "web page"),
        (b"PAR1", "Parquet"),
        (b"HepMC::Version 3", "END_EVENT_LISTING"),  # an event record cut short
    ],
)
def test_files_that_are_something_else_are_called_so(tmp_path, head, word):
    (tmp_path / "x.dat").write_bytes(head)
    with pytest.raises(ValueError, match=word):
        read(tmp_path / "x.dat", progress=False)


def test_archives_addresses_and_limits(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as z:
        z.writestr("jets.root", b"root")
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as z:
        z.writestr("x/data.pkl", b"")
    for name, word in (("x.zip", "unzip"), ("x.pt", "PyTorch")):
        with pytest.raises(ValueError, match=word):
            read(tmp_path / name, progress=False)
    for address in ("root://host//x.root", "s3://bucket/x.npz"):  # data.address tries https
        with pytest.raises((ValueError, ImportError), match="copy the file here first"):
            read(address, progress=False)
    p4, _ = plain(4)
    np.savez(tmp_path / "x.npz", p4=p4, names=np.array(["E", "px"], object))
    assert len(read(tmp_path / "x.npz", progress=False)) == 4
    for wrong in (500, "500,700", [1], (700, 500), ["a", 1], True):
        with pytest.raises(ValueError, match="pt = "):
            read(tmp_path / "x.npz", pt=wrong, progress=False)
    for wrong in (-3, 0, 1.5):
        with pytest.raises(ValueError, match="size="):
            read(tmp_path / "x.npz", size=wrong, progress=False)


def test_central_nanoaod(toys, tmp_path):
    "Version 15 has other names, and candidates that are weighted already."
    path = VARIANTS["pfnano v15"](tmp_path / "nano.root", 20)
    jets, old = read(path, progress=False), read(toys["pfnano"], progress=False)
    np.testing.assert_array_equal(jets.p4, old.p4)
    np.testing.assert_allclose(
        jets.weight, np.repeat(np.linspace(-0.5, 1.5, 20), 2), rtol=1e-6, atol=1e-7
    )
    with pytest.raises(ValueError, match="already"):
        read(path, puppi=True, progress=False)


def test_contents_of_everything_else():
    assert set(FORMATS) - set(TOYS) == {"jets"}
    assert contents(ROOT / "README.md") == set()
