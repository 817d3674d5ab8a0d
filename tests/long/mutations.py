"""Damage files of every kind in thousands of ways, open them, and count what happens.

    python tests/long/mutations.py --mutations 10000            # prints a table; exits with 1 for an undocumented end
    python tests/long/mutations.py --mutations 500 --seeds jets checkpoint

Files are opened in a child process with 2 GB of memory more than it has at the start, and thirty seconds for each file. An
end is "read" or "documented" (ValueError, KeyError, FileNotFoundError, ImportError); everything else is a fault: another
exception, a crash of the interpreter, a hang, too much memory.
"""

import argparse
import hashlib
import json
import os
import random
import resource
import select
import shutil
import signal
import struct
import sys
import tempfile
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import h5py
import numpy as np

DOCUMENTED = (ValueError, KeyError, FileNotFoundError, ImportError)
SECONDS, MEMORY = 30, 2 * 2**30
NUMBERS = [0, 1, -1, 2**7, 2**15, 2**31 - 1, -(2**31), 2**32 - 1, 10**12, 2**62, 2**63 - 1]
VALUES = [None, True, -1, 0, 10**9, 10**30, 1e300, "x", "", [], {}, [[]], ["a"], [-1], float("nan")]
VALUES += [{"../x": 1}, "../../x", "\0"]


# mutations ---------------------------------------------------------------------------------------


def bytes_changed(data, rng):
    "A file with a few bytes, a number, a piece or its end changed."
    data, near = (
        bytearray(data),
        rng.random() < 0.5,
    )  # half of them near the beginning, where headers are
    at = rng.randrange(min(len(data), 2000 if near else len(data)) or 1)
    kind = rng.randrange(6)
    if kind == 0:
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(min(len(data), 2000 if near else len(data)))] = rng.randrange(256)
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        size = rng.choice("bhiq")
        low, high = (
            -(2 ** (8 * struct.calcsize(size) - 1)),
            2 ** (8 * struct.calcsize(size) - 1) - 1,
        )
        number = min(max(rng.choice(NUMBERS), low), high)
        data[at : at + struct.calcsize(size)] = struct.pack("<" + size, number)
    elif kind == 3:
        del data[at : at + rng.randint(1, 64)]
    elif kind == 4:
        data[at:at] = data[max(0, at - rng.randint(1, 64)) : at]
    else:
        other = rng.randrange(len(data))
        data[at : at + 16], data[other : other + 16] = data[other : other + 16], data[at : at + 16]
    return bytes(data)


def leaves(x, at=()):
    "Paths to every value in nested dicts and lists."
    yield at
    for k, v in x.items() if isinstance(x, dict) else enumerate(x) if isinstance(x, list) else ():
        yield from leaves(v, (*at, k))


def json_changed(text, rng):
    "A JSON text with a value exchanged or removed, or brackets too deep."
    said = json.loads(text)
    if rng.random() < 0.03:
        return rng.choice(["[" * 10**5, '{"a":' * 10**5, "[]", "3", '"x"', "null", "NaN"])
    paths = [p for p in leaves(said) if p]
    if not paths:
        return json.dumps(rng.choice(VALUES))
    *path, last = rng.choice(paths)
    at = said
    for k in path:
        at = at[k]
    if rng.random() < 0.2:
        del at[last]
    else:
        at[last] = rng.choice(VALUES)
    return json.dumps(said)


def hdf5_changed(path, rng):
    "An HDF5 file with a data set, a group or an attribute exchanged for something else."
    with h5py.File(path, "r+") as file:
        names = []
        file.visit(names.append)
        name = rng.choice(names)
        there = file[name]
        if rng.random() < 0.25:
            at = rng.choice([file, there])
            keys = list(at.attrs) or ["format"]
            at.attrs[rng.choice(keys)] = rng.choice(
                [1, -1, 2**40, 1.5, "x", "[" * 9999, [1, 2], b"\xff", np.nan, "{}"]
            )
            return
        shape = there.shape if isinstance(there, h5py.Dataset) else (3,)
        kind = there.dtype if isinstance(there, h5py.Dataset) else np.float64
        del file[name]
        shapes = [
            (),
            (0,),
            shape[:-1],
            (*shape, 2),
            (0, *shape[1:]),
            shape[:1],
            tuple(s + 1 for s in shape),
        ]
        kinds = [kind, "f4", "i8", "u8", "c16", "S3", "?", "f2"]
        choice = rng.randrange(8)
        if choice == 0:
            file.create_group(name)
        elif choice == 1:
            file[name] = rng.choice(
                [h5py.SoftLink("/"), h5py.SoftLink(name), h5py.ExternalLink("/etc/passwd", "/")]
            )
        elif choice == 2 and shape:
            file.create_dataset(name, (10**12, *shape[1:]), "f4", chunks=True)
        elif choice == 3:
            file.create_dataset(name, (8,), "u1", external=[("/etc/passwd", 0, 8)])
        elif choice == 4:
            file[name] = file["/"]
        elif choice == 5:
            file.create_dataset(name, shape[:1] or (3,), h5py.vlen_dtype("f4"))
        elif choice == 6:
            file[name] = np.full(shape, rng.choice([np.nan, np.inf, -1, 1e38, 0]), "f4")
        else:
            file.create_dataset(name, rng.choice(shapes), rng.choice(kinds))


def header_changed(data, rng):
    "A safetensors file with its JSON header changed, the length made right again."
    size = int.from_bytes(data[:8], "little")
    text = json_changed(data[8 : 8 + size].decode(), rng).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def signed(folder):
    "Make the digest of a detector right again, as somebody would who damages it on purpose."
    try:
        said = json.loads((folder / "config.json").read_text())
        said["weights_sha256"] = hashlib.sha256(
            (folder / "weights.safetensors").read_bytes()
        ).hexdigest()
        (folder / "config.json").write_text(json.dumps(said))
    except (ValueError, TypeError):
        pass


def mutated(path, rng):
    "Change a file in place."
    kind = rng.random()
    if path.suffix == ".json" and kind < 0.7:
        path.write_text(json_changed(path.read_text(), rng))
    elif path.suffix == ".safetensors" and kind < 0.5:
        path.write_bytes(header_changed(path.read_bytes(), rng))
    elif path.read_bytes()[:4] == b"\x89HDF" and kind < 0.4:
        hdf5_changed(path, rng)
    else:
        path.write_bytes(bytes_changed(path.read_bytes(), rng))


# what is opened ----------------------------------------------------------------------------------


class Seed:
    "A file or folder in order, which of its files may be changed, and how it is opened."

    def __init__(self, name, path, opened, files=None, sign=False):
        self.name, self.path, self.opened, self.sign = name, Path(path), opened, sign
        self.files = files or [None]

    def change(self, place, rng):
        "A changed copy."
        target = place / self.path.name
        if self.path.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(self.path, target)
            name = rng.choice(self.files)
            mutated(target / name, rng)
            if self.sign and name == "weights.safetensors":
                signed(target)
        else:
            for p in place.glob(f"{self.path.name}*"):
                p.unlink()
            for p in self.path.parent.glob(f"{self.path.name}*"):  # a note beside it
                shutil.copy(p, place)
            mutated(place / (self.files[0] or self.path.name), rng)
        return target


def readers(base):
    "A seed for every format that has a toy."
    import jet_anomaly.data.toys as toys
    from jet_anomaly.data.read import read

    def opened(path):
        trust = {"trusted": True} if "multichannel" in path.name else {}
        return read(path, progress=False, **trust)

    for name, toy in toys.TOYS.items():
        toy(base / f"{name}.dat", 20)
        yield Seed(name, base / f"{name}.dat", opened)
    for name, toy in {
        "ragged": lambda p: toys.toy_vaejet(p, 20, None),
        "table": lambda p: toys.toy_lhco_features(p, 20),
        "npy": lambda p: np.save(open(p, "wb"), toys.toy_jets(20, width=8)[0]),
    }.items():
        path = base / f"other_{name}.dat"
        toy(path)
        yield Seed(name, path, opened)


def own(base):
    "Seeds of what the library saves itself."
    from kills import toy

    from jet_anomaly.cli.main import main
    from jet_anomaly.data.datasets import DataSet
    from jet_anomaly.data.fetch import fetch
    from jet_anomaly.detect.detector import load_detector, make_detector
    from jet_anomaly.evaluate.calibrate import Calibration
    from jet_anomaly.evaluate.decorrelation import MassDecorrelated
    from jet_anomaly.jet.jets import Jets

    jets, held, few = toy(300), toy(400, 1), toy(20, 2)
    jets.labels = np.zeros(300, int)
    jets.to_hdf5(base / "own.h5")
    yield Seed("jets", base / "own.h5", Jets.from_hdf5)

    def scored(folder):
        return load_detector(folder).anomaly_score(few)

    for name, options in {"vae": dict(hidden=(16, 8), latent=3), "pca": dict(components=3)}.items():
        detector = make_detector(name, **options)
        kept = {"folder": base / "run"} if name == "vae" else {}
        detector.fit(jets, held, epochs=2, batch_size=100, device="cpu", progress=False, **kept)
        detector.save(base / name)
        files = sorted(p.name for p in (base / name).iterdir())
        yield Seed(f"detector {name}", base / name, scored, files, sign=True)

    def resumed(folder):
        again = make_detector("vae", hidden=(16, 8), latent=3)
        again.fit(jets, held, epochs=2, batch_size=100, device="cpu", progress=False, folder=folder)

    yield Seed("checkpoint", base / "run", resumed, ["last.safetensors", "history.csv"])

    scores = detector.anomaly_score(held)
    Calibration().fit(scores).save(base / "calibration.safetensors")
    yield Seed(
        "calibration",
        base / "calibration.safetensors",
        lambda p: Calibration.load(p).p_value(scores[:9]),
    )
    ranks = MassDecorrelated(50).fit(scores, held.observables["mass"])
    ranks.save(base / "ranks.safetensors")
    yield Seed(
        "ranks",
        base / "ranks.safetensors",
        lambda p: MassDecorrelated.load(p).transform(scores[:9], held.observables["mass"][:9]),
    )
    mirror = base / "mirror/mine"
    mirror.mkdir(parents=True)
    (mirror / "a.bin").write_bytes(bytes(1000))
    digest = hashlib.sha256(bytes(1000)).hexdigest()
    data = DataSet("mine", "", {"a.bin": f"sha256:{digest}"}, "", "", "", base="https://localhost/")
    fetch(data, folder=base / "fetched", mirrors=[base / "mirror"], progress=False)
    yield Seed(
        "fetch note",
        base / "fetched/mine",
        lambda p: fetch(
            data, folder=p.parent, mirrors=[base / "mirror"], progress=False, verify=True
        ),
        ["a.bin.json"],
    )
    yield from experiments(base, main)


def experiments(base, main):
    "Seeds of comparisons, scans and budgets."
    from jet_anomaly.experiment.board import load_board
    from jet_anomaly.experiment.compare import compare, default_entries

    qcd = str(base / "own.h5")
    entries = [e for e in default_entries() if e.label == "pca"]

    def compared(folder):
        return compare({"qcd": qcd}, {"qcd": qcd, "top": qcd}, folder, entries=entries, seeds=1,
                       directions={"qcd": ("top",)}, progress=False)  # fmt: skip

    board = base / "board"
    trials = compared(board)
    from jet_anomaly.experiment.board import judge

    judge(trials, {"qcd": qcd, "top": qcd}, n=2).save(board)
    trial = [p.relative_to(board).as_posix() for p in board.rglob("*") if p.is_file()]
    yield Seed("board", board, load_board, ["board.json"])
    yield Seed(
        "trial", board, compared, [p for p in trial if p.endswith(("result.json", ".safetensors"))]
    )
    scan = (
        "scan dense_ae --option latent --values 2 3 --seeds 1 --epochs 1 --set hidden=[8]".split()
    )
    scan[2:2] = [qcd, "--device", "cpu", "--quiet", "--json"]

    def scanned(folder):
        if code := main([*scan, "--out", str(folder)]):
            raise ValueError(f"exit {code}")

    scanned(base / "scan")
    files = [p.relative_to(base / "scan").as_posix() for p in (base / "scan").rglob("*.json")]
    yield Seed("scan", base / "scan", scanned, files)


# the child and its watch -------------------------------------------------------------------------


def peak():
    "Most memory this process has had, in bytes."
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) * 1024


def attempt(seed, place, rng):
    "Change, open: how it ends."
    target = seed.change(place, rng)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            seed.opened(target)
        return "read", ""
    except DOCUMENTED as e:
        return "documented", type(e).__name__
    except MemoryError as e:
        return "memory", str(e)[:200]
    except Exception as e:
        import traceback

        where = traceback.extract_tb(e.__traceback__)
        inside = [f for f in where if "jet_anomaly" in f.filename] or where
        return (
            "other",
            f"{type(e).__name__}: {str(e)[:150]} ({Path(inside[-1].filename).name}:{inside[-1].lineno})",
        )


def child(jobs, place, pipe):
    "Try the jobs one after the other; say how each ends."
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    start = peak()
    for n, seed in jobs:
        began, before = time.monotonic(), peak()
        kind, text = attempt(seed, place, random.Random(n))
        grown = (
            peak() - start if peak() > before else 0
        )  # said of the file that was the largest so far
        said = [n, seed.name, kind, text, time.monotonic() - began, grown]
        os.write(pipe, (json.dumps(said) + "\n").encode())
    os._exit(0)


def watch(jobs, place):
    "Run the jobs in children; a list of [number, seed, how, text, seconds, bytes]."
    results, jobs = [], list(jobs)
    while jobs:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        ours, theirs = os.pipe()
        if not (pid := os.fork()):
            try:
                child(jobs[:200], place, theirs)
            finally:
                os._exit(1)
        os.close(theirs)
        done, text, end = 0, b"", None
        while end is None:
            if not select.select([ours], [], [], SECONDS)[0]:
                end = "hang"
                break
            if not (piece := os.read(ours, 2**16)):
                end = "crash"
                break
            text += piece
            done = text.count(b"\n")
        if end == "hang":
            os.kill(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.close(ours)
        results += [json.loads(line) for line in text.splitlines()]
        if done < min(200, len(jobs)):  # the next one was its end
            n, seed = jobs[done]
            name = signal.Signals(-code).name if code < 0 else str(code)
            results.append(
                [
                    n,
                    seed.name,
                    end,
                    "" if end == "hang" else name,
                    0 if end == "crash" else SECONDS,
                    0,
                ]
            )
            done += 1
        jobs = jobs[done:]
    return results


def campaign(mutations, names=None, seed=0, seconds=1e9, show=None):
    "So many mutations, the seeds in turn; the results."
    sys.path.insert(0, str(Path(__file__).parent))
    with tempfile.TemporaryDirectory() as base, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base, results, began = Path(base), [], time.monotonic()
        os.environ["JET_ANOMALY_CACHE"] = str(base / "cache")
        seeds = [s for s in [*readers(base), *own(base)] if s.name in (names or [s.name])]
        for s in seeds:
            s.opened(s.path)  # in order before it is changed
        jobs = [(seed * 10**6 + n, seeds[n % len(seeds)]) for n in range(mutations)]
        while jobs and time.monotonic() - began < seconds:
            results += watch(jobs[:1000], base / "place")
            jobs = jobs[1000:]
            if show:
                show(len(results), counted(results), flush=True)
    return results


def counted(results):
    kinds = {}
    for r in results:
        kinds[r[2]] = kinds.get(r[2], 0) + 1
    return kinds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seeds", nargs="+")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1e9)
    args = parser.parse_args()
    results = campaign(args.mutations, args.seeds, args.seed, args.seconds, print)
    for name in dict.fromkeys(r[1] for r in results):
        mine = [r for r in results if r[1] == name]
        slow, big = max(r[4] for r in mine), max(r[5] for r in mine)
        print(f"{name:28} {counted(mine)}  slowest {slow:.1f} s, most memory {big / 2**20:.0f} MB")
    faults = {}
    for r in results:
        if r[2] not in ("read", "documented"):
            faults.setdefault((r[1], r[2], r[3]), []).append(r[0])
    for (name, kind, text), where in sorted(faults.items(), key=lambda f: -len(f[1])):
        print(f"{len(where):4}  {name}: {kind} {text}  (mutation {where[0]})")
    print(json.dumps(counted(results)))
    sys.exit(bool(faults))
