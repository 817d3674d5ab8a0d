"""Work in many processes: training in two of them as in one, and a Dask cluster that loses a worker."""

import json

import numpy as np
import pytest
from helpers import ROOT, python

from jet_anomaly.core.workers import dask_executor, spread
from jet_anomaly.jet.jets import Jets

SCRIPT = ROOT / "tests" / "fixtures" / "train_two.py"


def trained(folder, processes, patience=None):
    "What each process ended with."
    folder.mkdir()
    launcher = (
        ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes)
        if processes > 1
        else ()
    )
    python(*launcher, SCRIPT, folder, json.dumps(patience), timeout=180, OMP_NUM_THREADS="1")
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(processes)]


@pytest.mark.parametrize("patience", [None, 1])
def test_two_processes_end_as_one(tmp_path, patience):
    (alone,) = trained(tmp_path / "one", 1, patience)
    both = trained(tmp_path / "two", 2, patience)
    lines = (tmp_path / "two/run/history.csv").read_text().splitlines()
    assert len(lines) == 1 + len(both[0]["losses"]), "not written once"
    assert both[0]["weights"] == both[1]["weights"]
    assert [r["world"] for r in both] == [2, 2], "the launcher started another number of processes"
    for rank in both:
        np.testing.assert_allclose(rank["weights"], alone["weights"], rtol=1e-5)
        np.testing.assert_allclose(rank["losses"], alone["losses"], rtol=1e-5)
        np.testing.assert_allclose(rank["rows"], alone["rows"], rtol=1e-5, atol=1e-8)
        assert rank["stopped"] == alone["stopped"]
        if (
            patience is None
        ):  # the distance correlation is that of the whole batch, jets of both processes
            np.testing.assert_allclose(rank["disco_term"], alone["disco_term"], rtol=1e-4)
            np.testing.assert_allclose(rank["disco"], alone["disco"], rtol=1e-4, atol=1e-6)
    if patience is None:
        walkers_of_each_process(*both)


def walkers_of_each_process(first, second):
    "Both share the network and neither shares its walkers; a training that was stopped goes on with those of each."
    for rank in first, second:
        for part in "net", "walkers":
            np.testing.assert_array_equal(rank["whole"][part], rank["broken"][part])
    np.testing.assert_allclose(first["whole"]["net"], second["whole"]["net"], rtol=1e-6)
    assert not np.isclose(first["whole"]["walkers"], second["whole"]["walkers"]).all()


@pytest.fixture(scope="module")
def cluster():
    "Two workers of one thread each. A job whose worker dies is not tried again by Dask itself, as in its strictest setting."
    dask = pytest.importorskip("dask", reason="needs Dask: pip install 'jet_anomaly[cluster]'")
    distributed = pytest.importorskip("distributed", reason="needs Dask's scheduler")
    strict = {
        "distributed.scheduler.allowed-failures": 0,
        "distributed.admin.low-level-log-length": 0,
    }
    with (
        dask.config.set(strict),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as started,
    ):
        yield started


def begin(folder, number, killed):
    "A job that writes down that it was begun; one ends its worker the first time, when another's result has arrived."
    import os
    import time
    from pathlib import Path

    file = Path(folder, f"{number}.txt")
    with open(file, "a") as f:
        f.write("begun\n")
    if number == killed and len(file.read_text().splitlines()) == 1:
        while not Path(folder, "received").exists():
            time.sleep(0.01)
        time.sleep(
            1
        )  # until Dask knows that the results which have arrived are not needed any more
        os._exit(1)
    return number


def test_a_dask_worker_dies_and_only_its_job_is_done_again(tmp_path, cluster, caplog):
    from functools import partial

    got = {}
    with dask_executor(cluster.scheduler_address) as executor:
        work = partial(begin, str(tmp_path), killed=3)
        for place, result in spread(work, range(8), executor=executor):
            got[place] = result
            if len(got) == 4:
                (tmp_path / "received").touch()
    assert got == {i: i for i in range(8)}
    begun = [len((tmp_path / f"{i}.txt").read_text().splitlines()) for i in range(8)]
    assert begun[3] == 2 and "A worker died" in caplog.text
    assert sum(begun) == 9, f"finished jobs were done again: {begun}"


def read_or_die(folder, function, *args):
    "A job of an executor; the worker that reads run2.h5 ends the first time."
    import os
    from pathlib import Path

    job = next(a for a in args if isinstance(a, dict))
    if not Path(job["out"]).with_suffix(".json").exists():
        with open(Path(folder, "log"), "a") as log:
            log.write(f"{Path(job['path']).name}\n")
        if Path(job["path"]).name == "run2.h5" and not Path(folder, "died").exists():
            Path(folder, "died").touch()
            os._exit(1)
    return function(*args)


def test_files_read_on_a_cluster_survive_a_dead_worker(tmp_path, cluster, caplog):
    from jet_anomaly.data.read import read_to

    for i in range(4):
        jets = Jets.from_hdf5(ROOT / "tests/fixtures/jets_0.1.0.h5", 5 * i, 5 * i + 5)
        jets.observables["event"] = np.arange(5)
        jets.to_hdf5(tmp_path / f"run{i}.h5")
    runs = str(tmp_path / "run?.h5")
    one = Jets.from_hdf5(read_to(tmp_path / "one.h5", runs, progress=False))
    with dask_executor(cluster.scheduler_address) as executor:
        submit = executor.submit
        executor.submit = lambda *a: submit(read_or_die, str(tmp_path), *a)
        many = read_to(tmp_path / "many.h5", runs, executor=executor, progress=False)
    many = Jets.from_hdf5(many)
    np.testing.assert_array_equal(one.p4, many.p4)
    np.testing.assert_array_equal(many.observables["event"], np.arange(20))
    assert one.meta == many.meta and "A worker died" in caplog.text
    log = (tmp_path / "log").read_text().split()
    assert log.count("run2.h5") == 2 and len(log) <= 6, f"finished files were read again: {log}"


def test_an_error_of_the_job_is_not_taken_for_a_dead_worker(cluster):
    with dask_executor(cluster.scheduler_address) as executor:
        with pytest.raises(ZeroDivisionError):
            list(spread(partial_error, [1, 0], executor=executor))


def partial_error(x):
    return 1 / x


def test_no_scheduler_is_an_error():
    pytest.importorskip("distributed", reason="needs Dask's scheduler")
    with pytest.raises(ValueError, match="No Dask scheduler answers at tcp://127.0.0.1:1"):
        with dask_executor("tcp://127.0.0.1:1", timeout=0.5):
            pass


def test_scores_of_a_cluster_are_those_of_one_process(tmp_path):
    distributed = pytest.importorskip("distributed", reason="needs Dask's scheduler")
    import h5py

    from jet_anomaly.cli.main import main

    fixtures = ROOT / "tests" / "fixtures"
    words = [
        "score",
        fixtures / "vae_0.1.0",
        fixtures / "jets_0.1.0.h5",
        "--quiet",
        "--batch-size",
        7,
    ]
    local = dict(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None)
    with distributed.LocalCluster(**local) as here:
        spread_out = ["--dask", here.scheduler_address]
        for name, more in {"one.h5": [], "many.h5": spread_out}.items():
            assert main([str(w) for w in [*words, "--out", tmp_path / name, *more]]) == 0
    with h5py.File(tmp_path / "one.h5") as one, h5py.File(tmp_path / "many.h5") as many:
        assert len(one["scores/loss"]) > 14, "fewer than three parts"
        for name in ("scores/loss", "scores/kl", "observables/pt"):
            np.testing.assert_array_equal(one[name], many[name])
