"""Killed trainings and full disks: a clean resume, and nothing half-written under the final name."""

import json
import os
import resource
import signal
import sys
import time

import numpy as np
import pytest
from helpers import Command

from jet_anomaly.detect.detector import load_detector
from jet_anomaly.jet.jets import Jets


def toy(n=2000, seed=0, width=25):
    rng = np.random.default_rng(seed)
    pt, (eta, phi) = rng.exponential(20, (n, width)), rng.normal(0, 0.3, (2, n, width))
    return Jets.from_constituents(
        np.stack([pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], -1)
    )


@pytest.fixture
def command(processes, tmp_path_factory):
    return lambda *words, **how: Command(processes, tmp_path_factory.mktemp("said"), *words, **how)


def test_a_killed_training_goes_on_to_the_same_bits(tmp_path, command):
    toy().to_hdf5(tmp_path / "qcd.h5")
    words = (
        "train",
        "vae",
        tmp_path / "qcd.h5",
        "--epochs",
        12,
        "--device",
        "cpu",
        "--quiet",
        "--json",
        "--set",
        "hidden=[32]",
    )
    assert command(*words, "--out", tmp_path / "whole").wait(300) == 0
    process = command(*words, "--out", tmp_path / "broken")
    history = tmp_path / "broken/checkpoints/history.csv"
    until = time.monotonic() + 200
    while time.monotonic() < until and not (
        history.exists() and len(history.read_text().splitlines()) > 3
    ):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    assert process.returncode == -signal.SIGKILL, "it ended before it could be killed"
    assert not (tmp_path / "broken/config.json").exists()  # not a detector yet
    again = command(*words, "--out", tmp_path / "broken")
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert json.loads(out)["epochs"] == 12
    for (k, a), b in zip(
        load_detector(tmp_path / "whole").state_dict().items(),
        load_detector(tmp_path / "broken").state_dict().values(),
    ):
        assert np.array_equal(a.numpy(), b.numpy()), k
    assert not list((tmp_path / "broken").rglob("*.part"))


def small_disk():
    "Files of this process may not grow beyond 20 kB; writing more fails as on a full disk."
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    sys.dont_write_bytecode = True  # half a compiled module would stay


@pytest.mark.skipif(os.name != "posix", reason="limits of file size are POSIX")
def test_a_full_disk_is_one_line_and_no_file(tmp_path, command):
    toy().to_hdf5(tmp_path / "jets.h5")
    np.savez(tmp_path / "mine.npz", p4=toy().p4)
    process = command(
        "read",
        "auto",
        tmp_path / "mine.npz",
        "--out",
        tmp_path / "out.h5",
        "--quiet",
        prepare=small_disk,
    )
    out, err = process.communicate(timeout=200)
    assert process.returncode == 1 and len(err.strip().splitlines()) == 1, err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["jets.h5", "mine.npz"]


def test_a_file_cut_short_is_an_error_of_one_line(tmp_path, command):
    whole = toy().to_hdf5(tmp_path / "jets.h5").read_bytes()
    for share in (0.02, 0.3, 0.9):
        (tmp_path / "short.h5").write_bytes(whole[: int(share * len(whole))])
        process = command(
            "train", "mean_square", tmp_path / "short.h5", "--out", tmp_path / "run", "--quiet"
        )
        out, err = process.communicate(timeout=200)
        assert (
            process.returncode == 1 and len(err.strip().splitlines()) == 1 and "short.h5" in err
        ), err
        assert not (tmp_path / "run").exists()


@pytest.mark.skipif(os.name != "posix", reason="process groups are POSIX")
def test_an_interrupted_scan_goes_on_and_leaves_no_process(tmp_path, command):
    toy(800).to_hdf5(tmp_path / "qcd.h5")
    words = (
        "scan",
        "dense_ae",
        tmp_path / "qcd.h5",
        "--option",
        "latent",
        "--values",
        2,
        4,
        "--seeds",
        2,
        "--processes",
        2,
        "--epochs",
        60,
        "--device",
        "cpu",
        "--set",
        "hidden=[64]",
        "--out",
        tmp_path / "scan",
        "--quiet",
        "--json",
    )
    run = command(*words)
    finished = lambda: {p: p.stat().st_mtime_ns for p in tmp_path.glob("scan/*/*/result.json")}
    until = time.monotonic() + 200
    while time.monotonic() < until and not finished() and run.poll() is None:
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does
    _, err = run.communicate(timeout=60)
    there = finished()
    assert (
        run.returncode == 130
        and "run the same command to go on" in err.splitlines()[-1]
        and "Traceback" not in err
    ), err
    assert 0 < len(there) < 4
    until = time.monotonic() + 30  # the last helper goes when the pipe to it is closed
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < until:
            os.killpg(run.pid, 0)
            time.sleep(0.05)
    again = command(*words)
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0 and json.loads(out)["trainings"] == len(finished()) == 4, err
    assert there.items() <= finished().items() and (tmp_path / "scan/scan.png").is_file()


@pytest.mark.skipif(os.name != "posix", reason="limits of file size are POSIX")
def test_a_training_on_a_full_disk_goes_on_when_there_is_room(tmp_path, command):
    toy(500).to_hdf5(tmp_path / "qcd.h5")
    words = ("train", "vae", tmp_path / "qcd.h5", "--epochs", 2, "--device", "cpu", "--quiet")
    words += ("--set", "hidden=[64]", "--out", tmp_path / "run")
    process = command(*words, prepare=small_disk)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 1 and len(err.strip().splitlines()) == 1, err
    assert "while writing" in err and not list(tmp_path.rglob("*.part"))
    assert command(*words).wait(200) == 0
    assert len(load_detector(tmp_path / "run").history) == 2
    assert not list(tmp_path.rglob(".*"))


def test_a_second_training_in_the_folder_is_refused(tmp_path, command):
    from jet_anomaly.core.locks import one_writer

    toy(500).to_hdf5(tmp_path / "qcd.h5")
    words = (
        "train",
        "vae",
        tmp_path / "qcd.h5",
        "--epochs",
        1,
        "--quiet",
        "--out",
        tmp_path / "run",
    )
    with one_writer(tmp_path / "run/checkpoints"):
        process = command(*words)
        _, err = process.communicate(timeout=200)
    assert process.returncode == 1 and "is being written by process" in err, err
