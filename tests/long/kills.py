"""Kill every verb of the command line at random moments, run it again, and compare with a run that nobody disturbed.

    python tests/long/kills.py --kills 1000            # prints a table; exits with 1 if anything differed
    python tests/long/kills.py --kills 50 --verbs train scan --keep FOLDER  # of what went wrong

Each run is a process of its own, forked from one that has imported the library, and ended by SIGKILL. The moment is
drawn uniformly over the length of an undisturbed run. A run is killed up to twelve times before it may end. The verbs
"… over Dask" leave their work to the worker of a cluster on this machine, which outlives the killed run.
"""

import argparse
import csv
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import h5py
import numpy as np

TIMES = re.compile(r"second|memory|throughput|hour|per_jet|_MB|us_per|rate|hardware|^time|date")
LITTER = (".part", ".lock", ".tag", ".origin")


def toy(n, seed=0, width=12, wide=0.3):
    "Jets of random constituents, two per event."
    from jet_anomaly.jet.jets import Jets

    rng = np.random.default_rng(seed)
    pt, (eta, phi) = rng.exponential(20, (n, width)), rng.normal(0, wide, (2, n, width))
    vectors = [pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)]
    jets = Jets.from_constituents(np.stack(vectors, -1))
    jets.observables["event"] = np.arange(n) // 2
    return jets


def fork(words, place, log):
    "A child that runs the command line in a folder; its process number."
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        os.chdir(place)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        from jet_anomaly.cli.main import main

        code = main([str(w) for w in words])
    except SystemExit as e:
        code = e.code
    except BaseException as e:  # noqa: B036
        print(f"{type(e).__name__}: {e}", file=sys.stderr, flush=True)
        code = 99
    os._exit(code or 0)


def ended(pid, seconds):
    "Exit status of a child, killed after that time; None when it was killed."
    until = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= until:
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.002)


# what is in a folder -----------------------------------------------------------------------------


def plain(x):
    "JSON without times."
    if isinstance(x, dict):
        return {k: plain(v) for k, v in x.items() if not TIMES.search(k)}
    return [plain(v) for v in x] if isinstance(x, list) else x


def contents(path):
    "What a file says, without times; raises when it is not whole."
    if path.suffix == ".h5":
        found = {}
        with h5py.File(path) as file:
            found["attrs"] = {k: str(v) for k, v in file.attrs.items()}
            file.visititems(
                lambda k, d: (
                    found.update({k: d[()].tobytes()}) if isinstance(d, h5py.Dataset) else None
                )
            )
        return found
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "np") as file:
            head = {
                k: plain(json.loads(v)) if v[:1] == "{" else v
                for k, v in (file.metadata() or {}).items()
            }
            return head | {k: file.get_tensor(k).tobytes() for k in file.keys()}
    if path.suffix == ".json":
        return plain(json.loads(path.read_text()))
    if path.suffix == ".csv":
        with open(path, newline="") as file:
            return [plain(row) for row in csv.DictReader(file)]
    if path.suffix == ".html":
        assert path.read_text().rstrip().endswith("</html>"), "cut off"
        return "page"
    if path.suffix == ".png":
        assert path.read_bytes()[-8:-4] == b"IEND", "cut off"
        return "picture"
    return path.read_bytes()


def difference(expected, found, name=""):
    "Where two contents differ first."
    if isinstance(expected, dict) and isinstance(found, dict):
        for k in sorted(expected.keys() | found.keys()):
            if expected.get(k) != found.get(k):
                return difference(expected.get(k), found.get(k), f"{name}/{k}")
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for i, (e, f) in enumerate(zip(expected, found)):
            if e != f:
                return difference(e, f, f"{name}/{i}")
    return f"{name}: {str(found)[:80]} instead of {str(expected)[:80]}"


def inventory(place):
    "Name → contents of the files of a run, and its litter."
    files = [
        p for p in sorted((place / "out").rglob("*")) if p.is_file()
    ]  # not the cache of kernels
    litter = [
        p for p in files if p.name.startswith(".") and (p.suffix in LITTER or ".lock" in p.name)
    ]
    found = {p.relative_to(place).as_posix(): contents(p) for p in files if p not in litter}
    return found, litter


CLUSTER = """
from distributed import LocalCluster
import sys
with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
    print(cluster.scheduler_address, flush=True)
    sys.stdin.read()
"""


@contextmanager
def cluster():
    "Address of a Dask cluster of one worker, in processes of its own; None without Dask."
    try:
        import distributed  # noqa: F401
    except ImportError:
        yield None
        return
    with tempfile.TemporaryDirectory() as place:
        log = open(os.path.join(place, "log"), "w")
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        script = os.path.join(place, "cluster.py")  # which its worker imports again
        Path(script).write_text(
            f"if __name__ == '__main__':{CLUSTER.replace(chr(10), chr(10) + '    ')}"
        )
        process = subprocess.Popen([sys.executable, script], cwd=place, **pipes)
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
            process.wait(60)
            log.close()


# the verbs ---------------------------------------------------------------------------------------


def verbs(inputs, dask=None):
    "Name → words of the command line; inputs are made once. With the address of a Dask cluster, also over that."
    from jet_anomaly.cli.main import main
    from jet_anomaly.data.datasets import DATASETS, DataSet

    qcd, top = inputs / "qcd.h5", inputs / "top.h5"
    toy(200).to_hdf5(qcd)
    toy(100, 1, wide=0.5).to_hdf5(top)
    np.savez(inputs / "mine.npz", p4=toy(2000, width=40).p4)
    for i in range(3):
        (inputs / f"part{i}.bin").write_bytes(np.random.default_rng(i).bytes(200_000))
    archive = inputs / "mine.tar"
    with tarfile.open(archive, "w") as file:
        for i in range(3):
            file.add(inputs / f"part{i}.bin", f"val/part{i}.bin")
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    DATASETS["mine"] = DataSet(
        "mine", "", {"mine.tar": f"md5:{md5}"}, "", "", "", base="https://localhost/"
    )
    quiet = ("--device", "cpu", "--quiet", "--json")
    small = ("--set", "hidden=[16]", "--set", "latent=2", "--set", "n_constituents=10")
    here = os.getcwd()
    os.chdir(inputs)
    assert not main(["train", "pca", "qcd.h5", "--out", "pca", "--validation", "0.6", *quiet])
    toy(4000, 2).to_hdf5("many.h5")
    score = ["score", "pca", "many.h5", "--out", "scores.h5", "--events", "max", *quiet]
    assert not main(score)
    os.chdir(here)
    search = ("search", inputs / "scores.h5", "--out", "out", "--toys", 48, "--keep", 0.1)
    search += ("--width", 0.1, "--unblind", "--json")
    scored = ("score", inputs / "pca", inputs / "many.h5", "--out", "out/scores.h5")
    over = ("--dask", dask)
    return {
        "simulate": ("simulate", "qcd", "-n", 100, "--preset", "fast", "--processes", 1)
        + ("--out", "out/qcd.h5", "--quiet"),
        "read": ("read", "auto", inputs / "mine.npz", "--out", "out/jets.h5", "--quiet"),
        "fetch": ("fetch", "mine", "--folder", "out", "--quiet"),
        "train": ("train", "vae", qcd, "--out", "out", "--epochs", 4, *small, *quiet),
        "score": (*scored, "--batch-size", 300, *quiet),
        "evaluate": ("evaluate", inputs / "pca", "--background", qcd, "--signal", f"top={top}")
        + ("--out", "out", *quiet),
        "export": (
            "export",
            inputs / "pca",
            qcd,
            "--out",
            "out/pca.onnx",
            "--int8",
            "out/pca8.onnx",
            "--json",
        ),
        "scan": ("scan", "dense_ae", qcd, "--option", "latent", "--values", 2, 3, "--seeds", 2)
        + ("--epochs", 1, "--set", "hidden=[16]", "--out", "out", *quiet),
        "compare": (
            "compare",
            "--train",
            f"qcd={qcd}",
            "--test",
            f"qcd={qcd}",
            "--test",
            f"top={top}",
        )
        + ("--direction", "qcd:top", "--entries", "pca", "mean_square", "--seeds", 2)
        + ("--out", "out", "--quiet", "--json"),
        "search": search,
    } | (
        {"search over Dask": (*search, *over), "score over Dask": (*scored, *over, *quiet)}
        if dask
        else {}
    )


class Case:
    "One verb: what an undisturbed run leaves, and how long it takes."

    def __init__(self, name, words, base, keep=None):
        self.name, self.words, self.base = name, words, base / name.replace(" ", "-")
        self.keep = keep
        self.done = self.kills = self.early = self.different = self.corrupt = 0
        self.litter = self.swept = self.stayed = 0
        self.notes = []
        self.expected, self.seconds = self.undisturbed()

    def place(self, n):
        place = self.base / str(n)
        place.mkdir(parents=True)
        os.environ["JET_ANOMALY_CACHE"] = str(place / "cache")
        return place

    def undisturbed(self):
        place, began = self.place("whole"), time.monotonic()
        code = ended(fork(self.words, place, self.base / "log"), 600)
        assert code == 0, (
            f"{self.name} fails undisturbed: {(self.base / 'log').read_text()[-2000:]}"
        )
        found, litter = inventory(place)
        assert not litter, litter
        return found, time.monotonic() - began

    def trial(self, n, rng):
        "Kill, run again, compare."
        place, times = self.place(n), rng.choice((1, 2, 4, 8, 12))
        for k in range(times):
            moment, began = rng.uniform(0, 1.05 * self.seconds), time.monotonic()
            code = ended(fork(self.words, place, self.base / "log"), moment)
            if code is not None:
                self.early += 1
                if not k:  # the machine was busy when the undisturbed run was timed
                    self.seconds = min(self.seconds, time.monotonic() - began)
                break
            self.kills += 1
            self.check_whole(place)
        code = ended(fork(self.words, place, self.base / "log"), 600)
        self.done += 1
        if code != 0:
            self.different += 1
            return self.note(f"ends with {code}: {(self.base / 'log').read_text()[-300:]}", place)
        found, litter = inventory(place)
        self.litter += len(litter)
        for name in sorted(found.keys() | self.expected.keys()):
            if found.get(name) != self.expected.get(name):
                self.different += 1
                self.note(difference(self.expected.get(name), found.get(name), name), place)
                break
        if litter and (self.seconds < 1 or self.swept < 5):
            self.swept_up(place, litter)
        shutil.rmtree(place)

    def swept_up(self, place, litter):
        "A run that writes two days later removes what killed ones left."
        for p in litter:
            os.utime(p, (time.time() - 2 * 86_400,) * 2)
        ended(fork(self.words, place, self.base / "log"), 600)
        left = inventory(place)[1]
        self.stayed += len(left)
        self.swept += len(litter) - len(left)
        if left:
            self.note(f"never swept: {[p.name for p in left]}", place)

    def check_whole(self, place):
        try:
            inventory(place)
        except Exception as e:
            self.corrupt += 1
            self.note(f"corrupt after a kill: {type(e).__name__}: {e}", place)

    def note(self, text, place):
        "Say what went wrong, and keep the files of the run beside those of an undisturbed one."
        if text not in self.notes:
            self.notes.append(text)
            for folder in (place, self.base / "whole") if self.keep else ():
                kept = self.keep / self.base.name / folder.name
                shutil.copytree(folder, kept, dirs_exist_ok=True)

    def row(self):
        return dict(verb=self.name, trials=self.done, kills=self.kills, ended_before=self.early,
                    corrupt=self.corrupt, different=self.different, litter=self.litter, swept=self.swept,
                    stayed=self.stayed, seconds=round(self.seconds, 2))  # fmt: skip


def warm(words, place, names):
    "Run the verbs once in this process: what they import and compile need not be done again in every child."
    from jet_anomaly.cli.main import main

    here = os.getcwd()
    for name in words:
        if name in names and "Dask" not in name:  # whose threads would not survive a fork
            (place / name).mkdir(parents=True)
            os.chdir(place / name)
            with redirect_stdout(io.StringIO()):
                assert not main([str(w) for w in words[name]]), name
    os.chdir(here)


def campaign(kills, names=None, seed=0, seconds=1e9, show=print, keep=None):
    "Kill until that many kills are done or the time is up; the cases."
    import matplotlib.pyplot  # noqa: F401  # what every child would import again
    import torch

    import jet_anomaly.detect.detector  # noqa: F401
    import jet_anomaly.evaluate.report  # noqa: F401

    torch.set_num_threads(1)
    rng, began, n = random.Random(seed), time.monotonic(), 0
    with_dask = cluster() if not names or any("Dask" in k for k in names) else nullcontext()
    with with_dask as dask, tempfile.TemporaryDirectory() as base:
        base = Path(base)
        (base / "inputs").mkdir()
        os.environ["JET_ANOMALY_MIRROR"] = str(base / "inputs")
        words = verbs(base / "inputs", dask)
        warm(words, base / "warm", names or words)
        cases = [Case(k, w, base / "runs", keep) for k, w in words.items() if k in (names or words)]
        while sum(c.kills for c in cases) < kills and time.monotonic() - began < seconds:
            case = min(cases, key=lambda c: (c.kills + 1) * c.seconds**0.6)  # quick ones more often
            case.trial(n, rng)
            n += 1
            if n % 50 == 0:
                show(f"{sum(c.kills for c in cases)} kills", flush=True)
    return cases


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--verbs", nargs="+")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--keep", type=Path, help="folder for the files of runs that went wrong")
    args = parser.parse_args()
    cases = campaign(args.kills, args.verbs, args.seed, args.seconds, keep=args.keep)
    for c in cases:
        print(json.dumps(c.row()))
        for text in c.notes:
            print("   ", text)
    total = {
        k: sum(c.row()[k] for c in cases)
        for k in ("trials", "kills", "corrupt", "different", "litter", "swept", "stayed")
    }
    print(json.dumps(total))
    sys.exit(bool(total["corrupt"] + total["different"] + total["stayed"]))
