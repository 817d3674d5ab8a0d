"""How fast the readers read, beside a loop over events or jets of the same file, and how much memory they take for a file ten times as large.

Seconds are those of the processor, so that a busy machine changes little; memory is the peak beyond that of the imports (Linux).

    python tests/benchmarks/read.py                    # every format on files it writes
    python tests/benchmarks/read.py delphes --rows 5000
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from functools import partial
from itertools import islice
from pathlib import Path

import fastjet
import h5py
import numpy as np
import pyarrow.parquet as pq
import pyhepmc
import uproot

from jet_anomaly.data.layouts import MASS
from jet_anomaly.data.pickles import unpickle_frame
from jet_anomaly.data.toys import TOYS, VARIANTS

EVENTS = {  # or jets, in the file of each format and container
    "delphes": 4000,
    "pfnano": 4000,
    "jetclass": 10_000,
    "lhco": 300,
    "lhco_features": 20_000,
    "toptagging": 5000,
    "jetnet": 20_000,
    "aspen": 5000,
    "vrnn": 1000,
    "vaejet": 10_000,
    "multichannel": 2000,
    "jetclass parquet": 10_000,
    "pfnano parquet": 4000,
    "pfnano ntuple": 4000,
    "pfnano v15": 4000,
    "atlas_top": 5000,
    "salt": 20_000,
    "case": 5000,
    "energyflow": 20_000,
    "hepmc": 300,
}


def one_jet(pt, eta, phi):
    "Four-vectors of one jet, hardest first, as a loop makes them."
    p = np.stack([pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], 1)
    return p[np.argsort(-pt)]


def delphes_loop(path, stop, refs="Constituents"):
    "Event by event, jet by jet, each reference looked up in a dictionary."
    tree = uproot.open(path)["Delphes"]
    kinds = [
        (c, "PT" if "Track" in c else "ET")
        for c in ("EFlowTrack", "EFlowPhoton", "EFlowNeutralHadron")
    ]
    jets = 0
    for e in range(min(stop, tree.num_entries)):
        get = lambda name: tree[name].array(entry_start=e, entry_stop=e + 1)[0]
        table = {}
        for c, pt in kinds:
            for i, *what in zip(
                get(f"{c}.fUniqueID"), get(f"{c}.{pt}"), get(f"{c}.Eta"), get(f"{c}.Phi")
            ):
                table[i & 0xFFFFFF] = what
        every = iter(get("FatJet.Constituents"))
        for n in get("FatJet.NConstituents"):
            one_jet(*np.array([table[next(every)] for _ in range(n)]).T)
            jets += 1
    return jets


def delphes_lists(path, stop):
    "The kindest loop: all columns as Python lists first, then events, jets and a dictionary."
    tree = uproot.open(path)["Delphes"]
    column = lambda name: tree[name].array(entry_stop=stop).tolist()
    kinds = [
        [column(f"{c}.{k}") for k in ("fUniqueID", pt, "Eta", "Phi")]
        for c, pt in (("EFlowTrack", "PT"), ("EFlowPhoton", "ET"), ("EFlowNeutralHadron", "ET"))
    ]
    refs, sizes, jets = column("FatJet.Constituents"), column("FatJet.NConstituents"), 0
    for e in range(len(refs)):
        table = {i & 0xFFFFFF: what for kind in kinds for i, *what in zip(*(k[e] for k in kind))}
        every = iter(refs[e])
        for n in sizes[e]:
            one_jet(*np.array([table[next(every)] for _ in range(n)]).T)
            jets += 1
    return jets


def tree_rows(path, stop, tree, names):
    "Entries of a tree or RNTuple, one by one, as name → array."
    tree = uproot.open(path)[tree]
    for e in range(min(stop, tree.num_entries)):
        yield {k: tree[k].array(entry_start=e, entry_stop=e + 1)[0].to_numpy() for k in names}


def parquet_rows(path, stop, tree, names):
    "Rows of a Parquet file, one by one, as name → array."
    for row in islice(pq.ParquetFile(path).iter_batches(1, columns=names), stop):
        yield {k: row[k][0].values.to_numpy() for k in names}


def nano_loop(path, stop, rows=tree_rows, s="s", index="pFCandsIdx"):
    "Candidates looked up jet by jet; `s` and `index` tell PFNano's names from those of NanoAOD."
    links = [f"FatJetPFCand{s}_jetIdx", f"FatJetPFCand{s}_{index}"]
    columns, jets = [f"PFCand{s}_{k}" for k in ("pt", "eta", "phi")], 0
    for row in rows(path, stop, "Events", [*links, *columns, "FatJet_pt"]):
        of, which = (row[k] for k in links)
        for j in range(len(row["FatJet_pt"])):
            one_jet(*(row[k][which[of == j]] for k in columns))
            jets += 1
    return jets


def jetclass_loop(path, stop, rows=tree_rows):
    names = [f"part_{k}" for k in ("energy", "px", "py", "pz")]
    return sum(
        cartesian(np.stack([row[k] for k in names], 1)) for row in rows(path, stop, "tree", names)
    )


def hepmc_loop(path, stop):
    "Event by event, particle by particle, clustered by FastJet."
    definition, jets = fastjet.JetDefinition(fastjet.antikt_algorithm, 1.0), 0
    with pyhepmc.open(path) as file:
        for event in islice(file, stop):
            particles = [
                fastjet.PseudoJet(p.momentum.px, p.momentum.py, p.momentum.pz, p.momentum.e)
                for p in event.particles
                if p.status == 1 and abs(p.pid) not in (12, 14, 16)
            ]
            found = fastjet.ClusterSequence(particles, definition)
            for jet in fastjet.sorted_by_pt(found.inclusive_jets(20.0))[:2]:
                p = np.array([[c.e(), c.px(), c.py(), c.pz()] for c in jet.constituents()])
                jets += cartesian(p)
    return jets


def energyflow_loop(path, stop):
    "Jet by jet; rapidity turned into pseudorapidity with the mass of the particle."
    x = np.load(path)["X"][:stop]
    for p in x:
        pt, y, phi, code = p[p[:, 0] > 0].T
        m = np.array([MASS[abs(int(c))] for c in code])
        one_jet(pt, np.arcsinh(np.hypot(pt, m) * np.sinh(y) / pt), phi)
    return len(x)


def atlas_loop(path, stop):
    with h5py.File(path) as file:
        columns = [file[f"fjet_clus_{k}"] for k in ("pt", "eta", "phi")]
        for i in range(min(stop, len(columns[0]))):
            pt, eta, phi = (c[i] for c in columns)
            one_jet(*(v[pt > 0] for v in (pt / 1000, eta, phi)))
    return i + 1


def salt_loop(path, stop):
    with h5py.File(path) as file:
        for i in range(min(stop, len(file["jets"]))):
            jet, flow = file["jets"][i], file["flow"][i]
            flow = flow[flow["valid"]]
            one_jet(flow["pt"] / 1000, jet["eta"] + flow["deta"], jet["phi"] + flow["dphi"])
    return i + 1


def case_loop(path, stop):
    with h5py.File(path) as file:
        both = [file[f"jet{j}_PFCands"] for j in (1, 2)]
        return sum(
            cartesian(data[i][:, [3, 0, 1, 2]])
            for i in range(min(stop, len(both[0])))
            for data in both
        )


def hdf5_loop(name, jet):
    "Row by row of a data set."

    def loop(path, stop):
        with h5py.File(path) as file:
            data = file[name]
            return sum(jet(data[i]) for i in range(min(stop, len(data))))

    return loop


def cartesian(p):
    p = p[p[:, 0] > 0]
    p[np.argsort(-np.hypot(p[:, 1], p[:, 2]))]
    return 1


def vrnn_event(event):
    jets = [one_jet(*j[1:][j[1:, 0] > 0, :3].T) for j in event if j[0, 0] > 0]
    return len(jets)


def multichannel_loop(path, stop):
    columns = unpickle_frame(path, trusted=True)
    for i in range(min(stop, len(columns["pt"]))):
        one_jet(*(np.array(columns[k][i]) for k in ("pt", "phi", "eta")))
    return i + 1


LOOPS = {
    "delphes": delphes_loop,
    "delphes, from lists": delphes_lists,
    "pfnano": nano_loop,
    "pfnano parquet": partial(nano_loop, rows=parquet_rows),
    "pfnano ntuple": nano_loop,
    "pfnano v15": partial(nano_loop, s="", index="pfCandIdx"),
    "jetclass": jetclass_loop,
    "jetclass parquet": partial(jetclass_loop, rows=parquet_rows),
    "toptagging": hdf5_loop("table/table", lambda r: cartesian(r["values_block_0"].reshape(-1, 4))),
    "jetnet": hdf5_loop(
        "particle_features", lambda p: len(one_jet(*p[p[:, 3] > 0][:, [2, 0, 1]].T)) > 0
    ),
    "aspen": hdf5_loop("PFCands", lambda p: cartesian(p[:, [3, 0, 1, 2]])),
    "vrnn": hdf5_loop("constituents", vrnn_event),
    "vaejet": hdf5_loop("table", lambda p: cartesian(p.reshape(-1, 4))),
    "multichannel": multichannel_loop,
    "atlas_top": atlas_loop,
    "salt": salt_loop,
    "case": case_loop,
    "energyflow": energyflow_loop,
    "hepmc": hepmc_loop,
}

CHILD = """
import json, re, sys, time
from jet_anomaly.data.read import read_blocks
import awkward, uproot, h5py
path, name, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
def peak(): return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024
before, start = peak(), time.process_time()
jets = sum(len(b) for b in read_blocks(path, name, **options))
print(json.dumps([jets, time.process_time() - start, peak() - before]))
"""


def measure(path, name, options):
    "Jets, seconds and extra peak memory (MB) of reading in a fresh process; the first block compiles what uproot compiles."
    out = subprocess.run(
        [sys.executable, "-c", CHILD, path, name, json.dumps(options)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return json.loads(out.splitlines()[-1])


def timed(function, *args):
    start = time.process_time()
    n = function(*args)
    return n / (time.process_time() - start)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("formats", nargs="*", help="default: all")
    parser.add_argument(
        "--rows", type=int, help="events or jets per file; ten times as many in the second file"
    )
    parser.add_argument("--loop", type=int, default=100, help="rows the loop reads (default 100)")
    parser.add_argument("--block", type=int, help="rows per block (default: the reader's)")
    args = parser.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}, one process")
    print(
        f"{'format':<20}{'MB':>7}{'jets':>8}{'jets/s':>10}{'MB/s':>7}{'copy MB/s':>11}{'loop jets/s':>13}{'ratio':>8}{'peak MB':>9}{'peak MB, 10×':>14}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in args.formats or EVENTS:
            toy, rows = (TOYS | VARIANTS)[name], args.rows or EVENTS[name]
            small, large = (
                toy(Path(folder) / f"{name}1", rows),
                toy(Path(folder) / f"{name}10", 10 * rows),
            )
            options = (
                {"size": args.block}
                if args.block
                else {"size": max(rows // 4, 1)}
                if name != "multichannel"
                else {}
            )
            options |= {"trusted": True} if name == "multichannel" else {}
            kind = name.split()[0]
            _, _, peak = measure(small, kind, options)
            jets, seconds, peak10 = measure(large, kind, options)
            size = large.stat().st_size / 1e6
            copy = size / (lambda t: large.read_bytes() and time.process_time() - t)(
                time.process_time()
            )  # the floor in bytes: the file from the page cache
            loops = {k: loop for k, loop in LOOPS.items() if k.split(",")[0] == name} or {
                name: None
            }
            for i, (label, loop) in enumerate(loops.items()):
                slow = (
                    timed(loop, small, args.loop if "lists" not in label else rows)
                    if loop
                    else float("nan")
                )
                print(
                    f"{label:<20}{size:>7.1f}{jets:>8}{jets / seconds:>10.0f}{size / seconds:>7.1f}{copy:>11.0f}{slow:>13.0f}{jets / seconds / slow:>8.0f}{peak:>9.0f}{peak10:>14.0f}"
                    if not i
                    else f"{label:<20}{'':>7}{'':>8}{'':>10}{'':>7}{'':>11}{slow:>13.0f}{jets / seconds / slow:>8.0f}"
                )
            small.unlink()
            large.unlink()


if __name__ == "__main__":
    main()
