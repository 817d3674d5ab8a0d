"""What the training benchmarks share: a fresh process for each case, and the speed of the machine's matrix products."""

import multiprocessing
import time


def in_process(function, *args):
    "What `function(*args, pipe)` sends through its pipe, from a process of its own: nothing compiled or cached before it counts."
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(False)
    process = context.Process(target=function, args=(*args, there))
    process.start()
    there.close()
    try:
        return here.recv()
    finally:
        process.join()


def peak_rate(device="cpu"):
    "Operations per second of a large matrix product, single precision, on the threads torch has."
    import torch

    n = 1024 if device == "cpu" else 8192
    a, clock = (
        torch.rand(n, n, device=device),
        time.process_time if device == "cpu" else time.perf_counter,
    )

    def once():
        start = clock()
        (a @ a)[0, 0].item()
        return clock() - start

    return 2 * n**3 / min(once() for _ in range(5))
