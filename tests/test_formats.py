"""Every reader: blocks of any size and files in any split give the same jets; real files against uproot, h5py, FastJet and vector."""

import subprocess
import sys
import warnings

import awkward as ak
import h5py
import numpy as np
import pytest
import uproot
import vector
from helpers import ROOT
from test_read import counts, fastjet, plain, real, trust

from jet_anomaly.data.columns import column_blocks, open_columns
from jet_anomaly.data.formats import recognise
from jet_anomaly.data.read import read, read_blocks
from jet_anomaly.data.source import CutFlow, open_hdf5
from jet_anomaly.data.toys import TOYS, VARIANTS, toy_jetnet
from jet_anomaly.jet.jets import concatenate

WRITERS = TOYS | VARIANTS
ROWS = 7
CUTS = dict(pt=(400, None), eta=1.4)  # on jets; nearly all formats lose some


def needs(name):
    return [fastjet] if name.startswith(("lhco", "hepmc")) and name != "lhco_features" else []


ALL = [pytest.param(n, marks=needs(n)) for n in [*WRITERS, "jets"]]


def same(a, b):
    "Whether two samples hold the same jets, to the last bit."
    width = max(a.p4.shape[1], b.p4.shape[1])
    for x, y in (
        (a.p4, b.p4),
        (a.mask, b.mask),
        *((a.features[k], b.features[k]) for k in a.features),
    ):
        x, y = (
            np.pad(v, [(0, 0), (0, width - v.shape[1])] + [(0, 0)] * (v.ndim - 2)) for v in (x, y)
        )
        np.testing.assert_array_equal(x, y)
    assert set(a.observables) == set(b.observables) and set(a.features) == set(b.features)
    for k, v in a.observables.items():
        np.testing.assert_array_equal(v, b.observables[k], err_msg=k)
    np.testing.assert_array_equal(a.labels, b.labels)


def write(name, path, seed=0):
    if name != "jets":
        return WRITERS[name](path, ROWS, seed=seed)
    jets = read(WRITERS["case"](path.with_suffix(".case"), ROWS, seed=seed), progress=False)
    jets.to_hdf5(path)
    return path


def gathered(files, size, **options):
    flow = CutFlow()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        blocks = list(read_blocks(files, size=size, cutflow=flow, **options))
    return concatenate(blocks), flow.to_list()


@pytest.mark.parametrize("name", ALL)
def test_blocks_and_files_make_no_difference(name, tmp_path):
    "Blocks of every size; three files at once, and one by one in every grouping."
    files = [write(name, tmp_path / f"{i}.dat", seed=i) for i in range(3)]
    assert recognise(files[0]) == name.split()[0].removesuffix("2")
    options = trust(name) | CUTS
    alone = [gathered(f, ROWS, **options) for f in files]
    for size in range(1, 2 * ROWS):
        jets, flow = gathered(files[0], size, **options)
        same(jets, alone[0][0])
        assert flow == alone[0][1], f"the cut-flow depends on the block size {size}"
    sums = {}
    for _, flow in alone:
        for r in flow:
            key = r["unit"], r["step"]
            sums[key] = np.add(sums.get(key, (0, 0)), (r["n"], r["cut"]))
    for size in (1, 3, 50):
        jets, flow = gathered(files, size, **options)
        assert {
            (r["unit"], r["step"]): (r["n"], r["cut"]) for r in flow if r["unit"] != "warning"
        } == {k: tuple(v) for k, v in sums.items() if k[0] != "warning"}
        start = 0
        for part, _ in alone:
            here = jets[start : start + len(part)]
            if "event" in here.observables:  # moved up, and otherwise the same
                shift = here.observables["event"][0] - part.observables["event"][0]
                here.observables["event"] = here.observables["event"] - shift
            same(here, part)
            start += len(part)
        assert start == len(jets)
    if "event" in jets.observables and name != "jets":
        events = [len(np.unique(p.observables["event"])) for p, _ in alone]
        assert len(np.unique(jets.observables["event"])) == sum(events)


@pytest.mark.parametrize("name", ["salt", "atlas_top", "jetclass parquet"])
def test_files_cut_at_any_row(name, tmp_path):
    "The rows of one file written as two, at every place: the same jets."
    path = write(name, tmp_path / "whole")
    whole, _ = gathered(path, 50)
    for cut in range(1, ROWS):
        halves = [tmp_path / f"{cut}{side}" for side in "ab"]
        for half, rows in zip(halves, (slice(0, cut), slice(cut, None))):
            if name == "jetclass parquet":
                ak.to_parquet(ak.from_parquet(path)[rows], half)
            else:
                with h5py.File(path) as old, h5py.File(half, "w") as new:
                    for k in old:
                        new[k] = old[k][rows]
        same(gathered(halves, 3)[0], whole)


def test_a_warning_about_units_does_not_depend_on_the_block_size(tmp_path):
    p4, _ = plain()
    np.save(tmp_path / "tev.npy", p4 / 1000)
    found = {}
    for size in (1, 7, 40):
        flow = CutFlow()
        with pytest.warns(UserWarning, match="in TeV"):
            list(read_blocks(tmp_path / "tev.npy", size=size, cutflow=flow))
        found[size] = [r for r in flow.to_list() if r["unit"] == "warning"]
        assert [r["n"] for r in found[size]] == [40]
    assert found[1] == found[7] == found[40]


def test_numbers_in_another_file_are_refused(tmp_path):
    "External links, external storage and virtual data sets, at the top, in a group and of a group."
    for name in (
        "jetnet",
        "aspen",
        "case",
        "vrnn",
        "atlas_top",
        "salt",
        "vaejet",
        "lhco_features",
        "vaejet ragged",
    ):
        kind = name.split()[0]
        source = write(name, tmp_path / f"{name}.h5")
        with h5py.File(source) as file:
            names = list(file)
        linked = tmp_path / f"{name} linked.h5"
        with h5py.File(linked, "w") as file:
            for k in names:
                file[k] = h5py.ExternalLink(source, k)
        with pytest.raises((ValueError, KeyError), match="link|other file|no data frame|holds no"):
            read(linked, kind, progress=False)
    source = toy_jetnet(tmp_path / "jetnet.h5", ROWS)
    with h5py.File(source) as file:
        x, jet = file["particle_features"][:], file["jet_features"][:]
        layout = h5py.VirtualLayout(x.shape, x.dtype)
        layout[:] = h5py.VirtualSource(file["particle_features"])
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("particle_features", layout)
        file["jet_features"] = jet
    (tmp_path / "raw.bin").write_bytes(x.tobytes())
    with h5py.File(tmp_path / "external.h5", "w") as file:
        file.create_dataset(
            "particle_features",
            x.shape,
            x.dtype,
            external=[(tmp_path / "raw.bin", 0, h5py.h5f.UNLIMITED)],
        )
        file["jet_features"] = jet
    for name in ("virtual", "external"):
        with pytest.raises(ValueError, match="other files"):
            read(tmp_path / f"{name}.h5", progress=False)


def test_labels_of_data_frames_are_never_guessed(tmp_path):
    from jet_anomaly.data.frames import write_frame

    names = [f"{c}_{i}" for i in range(2) for c in ("E", "PX", "PY", "PZ")]
    values = np.tile(np.float32([5, 3, 4, 0]), (3, 2))
    label = np.array([[0.0], [np.nan], [1.0]])
    path = write_frame(tmp_path / "t.h5", "table", [(names, values), (["is_signal_new"], label)])
    with pytest.warns(UserWarning, match="truth not known"):
        assert read(path, progress=False).labels.tolist() == [0, -1, 1]
    label[1] = 0.5
    path = write_frame(tmp_path / "t.h5", "table", [(names, values), (["is_signal_new"], label)])
    with pytest.raises(ValueError, match="first: 0.5"):
        read(path, progress=False)


def test_what_is_missing_or_of_another_kind_is_named(tmp_path):
    lhe = tmp_path / "x.lhe"
    lhe.write_text('<LesHouchesEvents version="3.0">\n')
    with pytest.raises(ValueError, match="shower it first"):
        read(lhe, progress=False)
    write("hepmc", tmp_path / "x.hepmc")
    write("jetclass parquet", tmp_path / "x.parquet")
    code = """
import sys; sys.modules[sys.argv[2]] = None
from jet_anomaly.data.read import read
try: read(sys.argv[1], progress=False)
except ImportError as e: print(e)
"""
    for package, path, extra in (
        ("pyhepmc", "x.hepmc", "jet_anomaly[hepmc]"),
        ("pyarrow.parquet", "x.parquet", "jet_anomaly[parquet]"),
    ):
        said = subprocess.run(
            [sys.executable, "-c", code, tmp_path / path, package],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert extra in said.stdout, said.stderr
    with uproot.recreate(tmp_path / "nano.root") as file:
        file.mkrntuple("Events", {"FatJet_pt": ak.Array([[1.0], []])})
    with pytest.raises(ValueError, match="without the particle-flow candidates"):
        read(tmp_path / "nano.root", progress=False)


# real files, against other libraries


def total(pt, eta, phi, mass):
    "Sum of particles as (E, px, py, pz), by vector."
    v = vector.array({"pt": pt, "eta": eta, "phi": phi, "mass": np.zeros_like(pt) + mass})
    return np.array([v.E.sum(), v.px.sum(), v.py.sum(), v.pz.sum()])


def agree(jets, sums):
    "Sums of constituents against others; the largest difference relative to the energy."
    ours = np.where(jets.mask[..., None], jets.p4, 0).astype(np.float64).sum(1)
    sums = np.array(sums)
    worst = (np.abs(ours - sums).max(1) / sums[:, 0]).max()
    assert ours.shape == sums.shape and worst < 1e-5, worst
    return worst


@pytest.mark.parametrize(
    "path, jet",
    [("delphes_fatjet/delphes.root", "FatJet"), ("delphes_ttbar/uproot-issue513.root", "Jet")],
)
def test_real_delphes_against_a_loop(path, jet):
    jets, _ = counts(path)
    tree = uproot.open(real(path))["Delphes"]
    kinds = {"EFlowTrack": "PT", "EFlowPhoton": "ET", "EFlowNeutralHadron": "ET"}
    column = {
        (c, k): tree[f"{c}/{c}.{k}"].array().to_list()
        for c, pt in kinds.items()
        for k in ("fUniqueID", pt, "Eta", "Phi")
    }
    refs, sums = tree[f"{jet}/{jet}.Constituents"].array(), []
    for e in range(tree.num_entries):
        table = {
            i & 0xFFFFFF: p
            for c, pt in kinds.items()
            for i, *p in zip(*(column[c, k][e] for k in ("fUniqueID", pt, "Eta", "Phi")))
        }
        for one in refs[e]:
            p = np.array([table[i & 0xFFFFFF] for i in one["refs"].to_list()]).T
            sums.append(total(*p, 0))
    agree(jets, sums)
    for k, b in (("pt", "PT"), ("mass", "Mass")):
        np.testing.assert_array_equal(
            jets.observables[k], ak.ravel(tree[f"{jet}/{jet}.{b}"].array())
        )


def test_real_pfnano_against_a_loop():
    jets, _ = counts("pfnano/pfnano.root")
    events = uproot.open(real("pfnano/pfnano.root"))["Events"]
    get = lambda k: events[k].array()
    of, index = get("FatJetPFCands_jetIdx"), get("FatJetPFCands_pFCandsIdx")
    p, pt = [get(f"PFCands_{k}") for k in ("pt", "eta", "phi", "mass")], get("FatJet_pt")
    sums = []
    for e in range(len(pt)):
        for j in range(len(pt[e])):
            which = index[e][of[e] == j]
            sums.append(total(*(x[e][which].to_numpy().astype(float) for x in p)))
    agree(jets, sums)
    np.testing.assert_array_equal(
        jets.observables["event_number"], np.repeat(get("event"), ak.num(pt))
    )


def test_real_jetclass2_and_its_columns_in_every_container(tmp_path):
    path = "jetclass2/JetClassII_example.root"
    jets, _ = counts(path)
    tree = uproot.open(real(path))["tree"]
    sums = [ak.sum(tree[f"part_{k}"].array(), 1).to_numpy() for k in ("energy", "px", "py", "pz")]
    agree(jets, np.stack(sums, 1))
    own = tree["jet_label"].array().to_numpy()
    np.testing.assert_array_equal(jets.labels, np.where(own >= 161, 0, own + 1))
    names = [k for k in tree.keys() if k.startswith(("part_", "jet_"))]
    columns = {k: tree[k].array() for k in names}
    ak.to_parquet(ak.zip(columns, depth_limit=1), str(tmp_path / "x.parquet"), row_group_size=30)
    same(read(tmp_path / "x.parquet", progress=False, size=23), jets)
    with uproot.recreate(tmp_path / "x.root") as file:
        file.mkrntuple("tree", columns)
    same(read(tmp_path / "x.root", progress=False, size=23), jets)


@fastjet
def test_real_lhco_against_fastjet_itself():
    pytest.importorskip("hdf5plugin", reason="needs the extra read")
    import fastjet as fj

    path, n = real("lhco_rnd/events_anomalydetection_tiny.h5"), 40
    jets = next(read_blocks(path, size=n))
    with open_hdf5(path) as file:
        rows = file["df/block0_values"][:n]
    definition, at = fj.JetDefinition(fj.antikt_algorithm, 1.0), 0
    for row in rows:
        pt, eta, phi = row[:2100].reshape(-1, 3)[row[0:2100:3] > 0].T
        v = vector.array({"pt": pt, "eta": eta, "phi": phi, "mass": 0 * pt})
        found = fj.ClusterSequence(
            [fj.PseudoJet(*p) for p in zip(v.px, v.py, v.pz, v.E)], definition
        )
        for jet in fj.sorted_by_pt(found.inclusive_jets(20.0))[:2]:
            got = jets[at : at + 1]
            np.testing.assert_allclose(got.observables["pt"], jet.pt(), rtol=1e-5)
            np.testing.assert_allclose(got.observables["mass"], jet.m(), rtol=1e-4, atol=1e-2)
            assert got.observables["n_constituents"][0] == len(jet.constituents())
            at += 1
    assert at == len(jets)


def test_real_arrays_against_h5py():
    jets, _ = counts("vrnn_2prong/events_anomalydetection_VRNN_2Prong_Signal.hdf5")
    with h5py.File(real("vrnn_2prong/events_anomalydetection_VRNN_2Prong_Signal.hdf5")) as file:
        p = file["constituents"][:].reshape(-1, 81, 4)
    p = p[p[:, 0, 0] > 0, 1:]
    agree(jets, [total(*j[j[:, 0] > 0].T) for j in p.astype(float)])
    jets, _ = counts("layouts/jetnet_30.hdf5")
    with h5py.File(real("layouts/jetnet_30.hdf5")) as file:
        p, jet = file["particle_features"][:].astype(float), file["jet_features"][:].astype(float)
    sums = [
        total(x[x[:, 3] > 0, 2] * j[0], x[x[:, 3] > 0, 0] + j[1], x[x[:, 3] > 0, 1], 0)
        for x, j in zip(p, jet)
    ]
    agree(jets, sums)
    jets, _ = counts("layouts/toptagging_60.h5")
    with h5py.File(real("layouts/toptagging_60.h5")) as file:
        group = file["table"]
        table = group["table"] if "table" in group else None
        values = (
            table["values_block_0"][:, :800]
            if table is not None
            else group["block0_values"][:, :800]
        )
    agree(jets, values.reshape(len(jets), 200, 4).astype(float).sum(1))


def test_real_rntuple_against_uproot():
    path = real("lhco_rnd").parent.parent / "cases" / "nanoaod_rntuple.root"
    if not path.exists():
        pytest.skip("the RNTuple of CMS open data is not at hand")
    names = ["FatJet_pt", "FatJet_eta", "Jet_pt", "run", "event", "genWeight"]
    want = uproot.open(path)["Events"]
    with open_columns(path, "Events") as columns:
        blocks = [b for _, b in column_blocks(columns, names, 3, CutFlow())]
    for name in names:
        whole = ak.concatenate([b[name] for b in blocks])
        assert whole.to_list() == want[name].array().to_list()
    assert sum(map(len, (b["run"] for b in blocks))) == 10 and ak.count(whole) == 10
    with pytest.raises(ValueError, match="without the particle-flow candidates"):
        recognise(path)
