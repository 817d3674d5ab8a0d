"""All measurements that need a GPU, in one go: every table is printed and kept in a file of its own.

    python tests/benchmarks/gpu.py --out gpu_tables                 (a quarter of an hour on one GPU)
    python tests/benchmarks/gpu.py --out tables --device cpu --tiny (does every table come out? some minutes)

What ends with an error, or takes longer than its share of the time, says so in its file; the others go on. The most
wanted come first. `--only WORD` runs the tables whose name contains it.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
TABLES = {  # name → script and its arguments on a GPU, those of a tiny run, seconds it may take
    "vae, long training": ("gpu.py", ["--measure", "long"], [], 150),
    "vae, several seeds": ("gpu.py", ["--measure", "seeds"], [], 150),
    "precision and AUC": ("gpu.py", ["--measure", "precision"], [], 150),
    "vae family, float32": (
        "training.py",
        ["--jets", "200000", "--only", "vae"],
        ["--jets", "400", "--only", "vae", "--epochs", "2"],
        150,
    ),
    "vae, wide, bf16": (
        "training.py",
        ["--jets", "200000", "--only", "vae, 1024", "--precision", "bf16"],
        ["--jets", "400", "--only", "dense_ae", "--epochs", "2"],
        90,
    ),
    "beside peers": (
        "peers.py",
        ["--rows", "20000", "--repeat", "2"],
        ["--rows", "200", "--repeat", "1"],
        120,
    ),
    **{
        f"ebm, published size, batch {n}": (
            "ebm.py",
            ["--size", "published", "--bf16", "--steps", "24", "--only", "ours", "--batch", str(n)],
            ["--only", "groups", "--repeat", "1", "--batch", "16"],
            90,
        )
        for n in (128, 1024, 4096)
    },
    "images": ("pixels.py", ["--jets", "40000"], ["--jets", "128", "--only", "channel_ae pt"], 120),
    "recurrent": (
        "vrnn.py",
        ["--jets", "200000", "--batch", "20000"],
        ["--jets", "300", "--rounds", "1"],
        120,
    ),
    "representations": (
        "represent.py",
        ["--jets", "100000", "--loop-jets", "20", "--toy"],
        ["--jets", "200", "--loop-jets", "5", "--toy", "--repeats", "1"],
        150,
    ),
}
BOTH = {"represent.py"}  # take no --device: they measure the GPU whenever there is one


def long_training(device, tiny):
    "Seconds of a hundred epochs of `vae` with 600,000 jets."
    import torch
    from training import toy_jets

    from jet_anomaly.detect.detector import make_detector

    jets, epochs = (1000, 2) if tiny else (600_000, 100)
    sample = toy_jets(min(jets, 100_000)) if tiny else repeated(toy_jets(100_000), 6)
    for batch in (100,) if tiny else (4000, 16_000):
        vae = make_detector("vae")
        settings = dict(batch_size=batch, patience=None, device=device, progress=False)
        vae.fit(sample[:1000], epochs=1, **settings)
        begin = time.perf_counter()
        history = vae.fit(sample, epochs=epochs, **settings)
        if device == "cuda":
            torch.cuda.synchronize()
        whole = time.perf_counter() - begin
        training = sum(len(sample) / r for r in history["jets_per_second"])
        print(
            f"{len(sample)} jets × {epochs} epochs, batch {batch}: {training:.1f} s of training, "
            f"{whole:.1f} s with the representation, {max(history['jets_per_second']):,.0f} jets/s",
            flush=True,
        )


def repeated(jets, times):
    from jet_anomaly.jet.jets import concatenate

    return concatenate([jets] * times)


def precision(device, tiny):
    "AUC and speed in single precision and with 16 bits."
    from jet_anomaly.data.sample import packaged_jets
    from jet_anomaly.detect.detector import make_detector
    from jet_anomaly.evaluate.metrics import auc

    background, top = packaged_jets("qcd", 2000), packaged_jets("top", 500)
    train, test = background.split(0.75, 0.25, seed=0)
    options = {"vae": {}, "image_ae": {}, "ebm": {}} if not tiny else {"vae": {}}
    print(f"{'':12}{'precision':>10}{'AUC':>8}{'jets/s':>12}")
    for name in options:
        for kind in ("no", "bf16"):
            detector = make_detector(name)
            history = detector.fit(
                train, epochs=1 if tiny else 20, device=device, precision=kind, progress=False
            )
            scores = [detector.anomaly_score(s, device=device) for s in (test, top)]
            rate = max(history["jets_per_second"])
            print(f"{name:12}{kind:>10}{auc(*scores):8.3f}{rate:12,.0f}", flush=True)


def seeds(device, tiny):
    "Seconds of one training of `vae` and of five seeds at once, batch 100; both train the first seed."
    import numpy as np
    import torch
    from training import toy_jets

    from jet_anomaly.detect.detector import make_detector
    from jet_anomaly.experiment.trials import fit_at_once, fit_seeds

    jets, epochs = (1000, 2) if tiny else (100_000, 3)
    sample, found, scores = toy_jets(jets), {}, []
    how = dict(batch_size=100, patience=None, device=device, progress=False)
    trainings = {"one": (fit_seeds, (0,)), "five at once": (fit_at_once, range(5))}
    for name, (train, numbers) in trainings.items():
        train(make_detector("vae"), sample[:1000], None, numbers, epochs=1, **how)  # warm up
        begin = time.perf_counter()
        trained = train(make_detector("vae"), sample, None, numbers, epochs=epochs, **how)
        if device == "cuda":
            torch.cuda.synchronize()
        whole = time.perf_counter() - begin
        loop = sum(jets / rate for rate in trained[0].history["jets_per_second"])
        found[name] = whole, loop
        scores.append(trained[0].anomaly_score(sample[:2000], device=device))
        print(
            f"{name}: {jets} jets × {epochs} epochs, batch 100: {whole:.2f} s, {loop:.2f} s of them "
            f"training, {loop / epochs / (jets / 100) * 1e3:.3f} ms a step",
            flush=True,
        )
    whole, loop = (five / one for one, five in zip(*found.values()))
    worst = np.abs(scores[1] / scores[0] - 1).max()
    print(f"five at once / one: {whole:.2f} in all, {loop:.2f} of training")
    print(f"largest relative difference of the first seed's scores: {worst:.1e}")


MEASURES = {"long": long_training, "precision": precision, "seeds": seeds}


def one(name, args):
    "Run a table in a process of its own; its text, and whether it came out."
    script, full, tiny, seconds = TABLES[name]
    seconds = 900 if args.tiny else seconds  # a CPU may be a busy one
    words = tiny if args.tiny and script != "gpu.py" else full
    if script not in BOTH:
        words = [*words, "--device", args.device]
    if script == "gpu.py" and args.tiny:
        words = [*words, "--tiny"]
    command = [sys.executable, str(HERE / script), *words]
    begin = time.perf_counter()
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        text, good = (
            said.stdout + ("" if said.returncode == 0 else said.stderr),
            not said.returncode,
        )
    except subprocess.TimeoutExpired as e:
        text, good = (e.stdout or b"").decode() + f"\nstopped after {seconds} s\n", False
    shown = " ".join(["python", f"tests/benchmarks/{script}", *words])
    return f"{name}\n{shown}\n{time.perf_counter() - begin:.0f} s\n\n{text}", good


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="gpu_tables", help="folder of the tables")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that it runs")
    parser.add_argument("--only", default="", help="tables whose name contains this")
    parser.add_argument("--measure", choices=tuple(MEASURES), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        MEASURES[args.measure](args.device, args.tiny)
        sys.exit()
    folder, failed = Path(args.out), []
    folder.mkdir(parents=True, exist_ok=True)
    for name in (n for n in TABLES if args.only in n):
        text, good = one(name, args)
        (folder / f"{name.replace(', ', '-').replace(' ', '_')}.txt").write_text(text)
        print(text, flush=True)
        failed += [] if good else [name]
    sys.exit(f"no table: {', '.join(failed)}" if failed else 0)
