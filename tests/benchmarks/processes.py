"""What a second process costs and gains: files read by several, and one training shared by several.

    python tests/benchmarks/processes.py            (one and two processes, some minutes)

Processor seconds, which hardly depend on what else the machine does: in all, and of the busiest process. The latter is
the time by the clock on a quiet machine with a core for each.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def reading(processes, files=8, events=1000, **settings):
    "Seconds in all and of the busiest process, to read files of Delphes; starting the workers does not count."
    from jet_anomaly.data.read import read_to
    from jet_anomaly.data.toys import toy_delphes

    with tempfile.TemporaryDirectory() as folder:
        here, spent = Path(folder), []
        for number, size in enumerate(
            (1, events, 1)
        ):  # kernels are made; the work; the start alone
            names = [here / f"run{number}_{i}.root" for i in range(files)]
            for i, name in enumerate(names):
                toy_delphes(name, events=size, seed=i)
            before = [resource.getrusage(who) for who in WHO]
            read_to(here / f"{number}.h5", names, processes=processes, progress=False, **settings)
            after = [resource.getrusage(who) for who in WHO]
            spent.append(
                [b.ru_utime + b.ru_stime - a.ru_utime - a.ru_stime for a, b in zip(before, after)]
            )
    own, workers = (a - b for a, b in zip(*spent[1:]))
    return own + workers, own + workers / processes


WHO = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN


def training(processes, batch):
    "Seconds in all and of the busiest process, of an epoch of `vae` with 4,000 jets."
    with tempfile.TemporaryDirectory() as folder:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes]
        launcher = list(map(str, launcher)) if processes > 1 else []
        words = [__file__, "--rank", folder, "--batch", str(batch)]
        subprocess.run([sys.executable, *launcher, *words], check=True, stderr=subprocess.DEVNULL)
        spent = [json.loads(p.read_text()) for p in Path(folder).glob("*.json")]
    assert len(spent) == processes
    return sum(spent), max(spent)


def one_rank(folder, batch):
    from jet_anomaly.data.sample import packaged_jets
    from jet_anomaly.detect.detector import make_detector
    from jet_anomaly.jet.jets import concatenate

    jets, spent = concatenate([packaged_jets("qcd", 2000)] * 2), []
    how = dict(batch_size=batch, patience=None, device="cpu", progress=False)
    make_detector("vae").fit(jets[:500], epochs=2, **how)  # what is done once
    for epochs in 1, 4:
        begin = time.process_time()
        make_detector("vae").fit(jets, epochs=epochs, **how)
        spent.append(time.process_time() - begin)
    rank = os.environ.get("RANK", 0)
    Path(folder, f"{rank}.json").write_text(json.dumps((spent[1] - spent[0]) / 3))


TASKS = {
    "16,000 jets of Delphes": reading,
    "with substructure": lambda n: reading(n, substructure=True),
    "epoch of vae, batch 100": lambda n: training(n, 100),
    "epoch of vae, batch 1000": lambda n: training(n, 1000),
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--most", type=int, default=2, help="processes")
    parser.add_argument("--rank", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank:
        one_rank(args.rank, args.batch)
        sys.exit()
    found = {}
    print(f"{'processor seconds':26}{'processes':>10}{'in all':>9}{'busiest':>9}")
    for name, task in TASKS.items():
        for n in range(1, args.most + 1):
            found[name, n] = task(n)
            print(f"{name:26}{n:10}{found[name, n][0]:9.2f}{found[name, n][1]:9.2f}", flush=True)
