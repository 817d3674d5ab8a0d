"""Training from files that do not fit: peak memory and speed of `vae` with its columns in memory and on disk.

    python tests/benchmarks/stream.py [jets]

The file holds the packaged jets again and again: 40,000 by default, and ten times as many. Every line is a process of
its own: reading, the representation, and two epochs at batch 1,000, on one thread. The memory is what the process has
to itself (RssAnon); pages of files are the system's, which takes them back.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

WORK = """
import json, sys, threading, time, re
import torch
torch.set_num_threads(1)
from jet_anomaly.detect.detector import make_detector
peak, done = [0], threading.Event()
def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
def watch():
    while not done.wait(0.02): peak[0] = max(peak[0], anonymous())
vae, path = make_detector("vae"), sys.argv[1]
vae.fit(path.replace("large", "warm").replace("small", "warm"), epochs=1, progress=False, device="cpu")
before = anonymous()
threading.Thread(target=watch, daemon=True).start()
begin = time.perf_counter(), time.process_time()
vae.fit(path, epochs=2, batch_size=1000, progress=False, device="cpu")
wall, cpu = time.perf_counter() - begin[0], time.process_time() - begin[1]
done.set()
print(json.dumps(dict(peak=peak[0] - before, wall=wall, cpu=cpu)))
"""


def write(path, n):
    from jet_anomaly.data.sample import packaged_jets
    from jet_anomaly.jet.jets import JetWriter

    jets = packaged_jets("qcd", 2000)
    with JetWriter(path) as writer:
        for _ in range(n // len(jets)):
            writer.append(jets)


def trained(path, gigabytes):
    env = os.environ | {"JET_ANOMALY_MEMORY": str(gigabytes)}
    said = subprocess.run(
        [sys.executable, "-c", WORK, str(path)], env=env, check=True, capture_output=True, text=True
    )
    return json.loads(said.stdout.splitlines()[-1])


if __name__ == "__main__":
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 40_000
    with tempfile.TemporaryDirectory() as folder:
        files = {"warm": 2000, "small": n, "large": 10 * n}
        for name, jets in files.items():
            write(Path(folder, f"{name}.h5"), jets)
        print(f"{'jets':>8} {'columns':>9} {'peak':>9} {'processor':>12} {'wall':>10}")
        for name in "small", "large":
            for place, limit in {"memory": 1000, "disk": 0}.items():
                r = trained(Path(folder, f"{name}.h5"), limit)
                print(
                    f"{files[name]:8d} {place:>9} {r['peak']:6.0f} MB "
                    f"{r['cpu'] / files[name] * 1e6:5.0f} µs/jet {r['wall']:8.1f} s",
                    flush=True,
                )
