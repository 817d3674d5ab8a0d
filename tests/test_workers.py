"What the chapter on processes cannot show: killed and interrupted parents, scripts without a guard, cards dealt out."

import os
import signal
import subprocess
import sys
import time

import pytest
from helpers import ROOT

from jet_anomaly.core.workers import Workers

SCRIPT = """
import signal, time
print("script", flush=True)
signal.signal(signal.SIGINT, signal.default_int_handler)
from jet_anomaly.core.workers import Workers
at_work = "(__import__('time').sleep(.1), __import__('os').getpid())[1]"
with Workers(2) as pool:
    while len(pids := set(pool.map(eval, [at_work] * 4))) < 2: pass
    for i in range(2): pool.submit(time.sleep, 600)
    print(*pids, flush=True)
    time.sleep(600)
"""


WHO = "(__import__('time').sleep(.1), __import__('os').getpid(), __import__('os').environ['CUDA_VISIBLE_DEVICES'])[1:]"


@pytest.fixture
def parent(tmp_path):
    "A script without a main guard that has started two workers, and their process ids."
    (tmp_path / "script.py").write_text(SCRIPT)
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.Popen(
        [sys.executable, tmp_path / "script.py"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert run.stdout.readline().split() == ["script"]
    yield run, [int(pid) for pid in run.stdout.readline().split()]
    run.kill()
    run.communicate()


def running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = f"/proc/{pid}/stat"
    return not os.path.exists(state) or open(state).read().rsplit(")", 1)[1].split()[0] != "Z"


def all_end(pids):
    until = time.monotonic() + 60
    while any(map(running, pids)):
        assert time.monotonic() < until, "workers are left"
        time.sleep(0.05)


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_workers_end_with_a_killed_parent(parent):
    run, pids = parent
    assert len(pids) == 2
    run.kill()
    all_end(pids)


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_an_interrupt_is_one_traceback_and_the_script_ran_once(parent):
    run, pids = parent
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does
    output = run.communicate(timeout=60)[0]
    assert (
        run.returncode
        and output.count("Traceback") == 1
        and "KeyboardInterrupt" in output
        and "script" not in output.splitlines()
    )
    all_end(pids)


def test_cards_are_dealt_out_in_turn():
    with Workers(3, devices=["4", "7"]) as pool:
        cards = []
        while len(cards) < 3:
            cards = sorted(dict(pool.map(eval, [WHO] * 6)).values())
        assert cards == ["4", "4", "7"]
