"""What the chapter on simulation cannot show: kills, full disks, dead workers, missing packages, damaged files."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT

from jet_anomaly.data import shards as parts
from jet_anomaly.data import simulate as module
from jet_anomaly.data.processes import process_names
from jet_anomaly.data.shards import make_sample, make_shard
from jet_anomaly.data.simulate import simulate

pytestmark = pytest.mark.xdist_group("simulate")
FAST = dict(seed=7, preset="fast", progress=False)


def files(folder):
    return {p.name: p.read_bytes() for p in Path(folder).rglob("*.h5")}


def script(text, **options):
    "A Python process that runs `text` from a file, as a user's script without a main guard."
    path = options.pop("folder") / "script.py"
    path.write_text(text)
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, str(path)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def wait_until(true, seconds=120):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def gone(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    "The files of an undisturbed run in one process."
    folder = tmp_path_factory.mktemp("reference")
    simulate("w", 750, cache=folder, processes=1, **FAST)
    return files(folder)


PROGRAM = """
import signal
from jet_anomaly.data.simulate import simulate
signal.signal(signal.SIGINT, signal.default_int_handler)
simulate("w", 5000, cache={cache!r}, processes=2, **{settings})
"""


def long_run(cache, folder):
    "A process that simulates, in a process group of its own; its first shard is there."
    program = PROGRAM.format(cache=str(cache), settings=FAST)
    run = script(program, folder=folder, start_new_session=True)
    wait_until(lambda: files(cache) or run.poll() is not None)
    return run


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
def test_a_killed_run_leaves_whole_shards_and_goes_on(tmp_path, reference):
    cache = tmp_path / "cache"
    run = long_run(cache, tmp_path)
    run.kill()
    output = run.communicate()[0]
    wait_until(lambda: gone(run.pid))  # the workers end themselves
    left = files(cache)
    assert left and left.items() <= reference.items(), output
    simulate("w", 750, cache=cache, processes=1, **FAST)
    assert files(cache) == reference
    for part in [*cache.rglob(".*")]:
        os.utime(
            part, (0, 0)
        )  # what was being written when it was killed: left alone while it may be another's, swept when old
    simulate("w", 750, cache=cache, processes=1, **FAST)
    assert not list(cache.rglob(".*")) and files(cache) == reference, "temporary files are left"


def test_an_interrupted_run_ends_at_once_and_cleanly(tmp_path, reference):
    cache = tmp_path / "cache"
    run = long_run(cache, tmp_path)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does
    output = run.communicate(timeout=60)[0]
    assert run.returncode and "KeyboardInterrupt" in output
    assert {k: v for k, v in files(cache).items() if k in reference}.items() <= reference.items()


def test_the_shards_of_a_dead_worker_are_made_by_another(tmp_path, reference, caplog):
    times = {}

    def kill():
        wait_until(lambda: files(tmp_path) and multiprocessing.active_children())
        times.update({f: os.stat(f).st_mtime_ns for f in tmp_path.rglob("shard-*.h5")})
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    simulate("w", 750, cache=tmp_path, processes=2, **FAST)
    killer.join()
    assert files(tmp_path) == reference
    assert "A worker died" in caplog.text
    assert times and all(os.stat(f).st_mtime_ns == t for f, t in times.items()), "made again"


@pytest.fixture
def tiny(monkeypatch):
    "Small shards; workers do not know of it."
    monkeypatch.setattr(parts, "SMALL", 20)


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path):
    pytest.importorskip("resource")
    cache = tmp_path / "cache"
    run = script(
        f"""
import resource, signal, sys
sys.dont_write_bytecode = True  # half a compiled module would stay
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))  # as if there were no more room
from jet_anomaly.data.simulate import simulate
simulate('w', 250, cache={str(cache)!r}, **{FAST})
""",
        folder=tmp_path,
    )
    output = run.communicate(timeout=120)[0]
    assert (
        run.returncode == 1
        and "free space, or choose another folder with cache= or JET_ANOMALY_CACHE; finished shards are kept"
        in output
    )
    assert not [p for p in cache.rglob("*") if p.is_file()]


def test_damaged_shards_and_old_leftovers_are_replaced(tmp_path, tiny):
    simulate("w", 20, cache=tmp_path, **FAST)
    whole = files(tmp_path)
    [shard] = tmp_path.rglob("*.h5")
    shard.write_bytes(shard.read_bytes()[:5000])
    old, new = (shard.with_name(f".shard-0000{i}.h5.x.unfinished.part") for i in (1, 2))
    for part in old, new:
        part.write_bytes(b"half")
    os.utime(old, (0, 0))
    simulate("w", 20, cache=tmp_path, **FAST)
    assert files(tmp_path) == whole
    assert new.exists() and not old.exists()  # another run may be writing the new one


def test_any_executor_does(tmp_path, tiny):
    simulate("w", 40, cache=tmp_path / "serial", processes=1, **FAST)
    with ThreadPoolExecutor(1) as pool:
        simulate("w", 40, cache=tmp_path / "pool", processes=pool, **FAST)
    assert files(tmp_path / "pool") == files(tmp_path / "serial")


@pytest.mark.parametrize("package", ["pythia8mc", "fastjet"])
def test_a_missing_package_says_where_wheels_are(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ImportError,
        match=rf"{package}, which is not installed: pip install jet_anomaly\[simulate\].*Linux \(x86_64\) and macOS \(arm64\)",
    ):
        simulate("w", 250, cache=False, **FAST)


@pytest.mark.parametrize("process", process_names())
def test_every_process_gives_what_it_promises(process, tiny):
    sample = make_sample(process, preset="fast", n_constituents=60)
    jets, again = make_shard(sample, 0), make_shard(sample, 0)
    o, (low, high) = jets.observables, sample.pt
    leading = o["rank"] == 0 if process.startswith("lhco") else np.ones(20, bool)
    assert len(jets) == 20 and jets.p4.shape[1] == 60
    assert ((o["pt"] > low) & (o["pt"] < high))[leading].all() and (np.abs(o["eta"]) < 2).all()
    assert (jets.labels == (0 if process.endswith("qcd") else 1)).all()
    assert set(np.unique(jets.features["pdgid"][jets.mask])) <= {
        -211,
        -13,
        -11,
        11,
        13,
        22,
        130,
        211,
    }
    assert (o["n_constituents"] >= jets.mask.sum(1)).all()
    np.testing.assert_array_equal(jets.p4, again.p4)
    for name, values in o.items():
        np.testing.assert_array_equal(values, again.observables[name])


def test_masses_and_windows_move_the_jets(monkeypatch):
    monkeypatch.setattr(parts, "SMALL", 60)
    heavy, light = (
        np.median(
            make_shard(make_sample("w", mass=m, preset="fast"), 0).observables["softdrop_mass"]
        )
        for m in (150, 60)
    )
    assert abs(heavy - 150) < 30 and abs(light - 60) < 15
    high = make_shard(make_sample("qcd", pt=(800, 1000), preset="fast", radius=0.8), 0)
    assert 800 < high.observables["pt"].min() and high.observables["pt"].max() < 1000


def test_shards_of_others_and_damaged_ones_are_made_again(tmp_path):
    how = dict(preset="fast", processes=1, progress=False, cache=tmp_path)
    simulate("qcd", 250, seed=3, **how)
    sample = make_sample("qcd", seed=3, preset="fast")
    folder = tmp_path / sample.name()
    path = folder / "shard-00000.h5"
    whole = path.read_bytes()
    assert module._finished(folder, 0, sample)
    assert not module._finished(folder, 0, make_sample("qcd", seed=4, preset="fast"))
    at = len(whole) // 2
    path.write_bytes(whole[:at] + bytes(2000) + whole[at + 2000 :])
    if module._finished(folder, 0, sample):  # its header is in order
        with pytest.raises(ValueError, match="makes it again"):
            simulate("qcd", 250, seed=3, **how)
        assert not path.exists()


def test_a_cache_that_cannot_be_made_names_the_variable(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="JET_ANOMALY_CACHE"):
        simulate("qcd", 5, cache=tmp_path / "file", **FAST)
