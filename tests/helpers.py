"""What the tests of the house share: where things stand, and how to run a program without leaving anything behind."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import warnings
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
NBS, LIBRARY = ROOT / "nbs", ROOT / "jet_anomaly"
CHAPTERS = sorted(
    p for p in NBS.rglob("*.ipynb") if not any(d[0] in "._" for d in p.relative_to(NBS).parts[:-1])
)
MODULES = sorted(p for p in LIBRARY.rglob("*.py") if p.name not in ("__init__.py", "_modidx.py"))
BOOK = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))["book"]


def name(path):
    "A path as it is known in the repository."
    return path.relative_to(ROOT).as_posix()


def run(*command, cwd=ROOT, timeout=600, **env):
    "Standard output and error of a program, which is killed with its children when it takes too long; fails when it fails."
    paths = os.pathsep.join(filter(None, [str(cwd), os.environ.get("PYTHONPATH")]))
    env = os.environ | {"PYTHONPATH": paths, "MPLBACKEND": "agg"} | env
    process = subprocess.Popen(
        [str(c) for c in command],
        cwd=cwd,
        env=env,
        text=True,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(
            f"took longer than {timeout} s: {shlex.join(map(str, command))}\n{process.communicate()[0][-4000:]}",
            pytrace=False,
        )
    except BaseException:  # interrupted: the children go too
        os.killpg(process.pid, signal.SIGKILL)
        raise
    if process.returncode:
        pytest.fail(
            f"exit {process.returncode}: {shlex.join(map(str, command))}\n{output[-8000:]}",
            pytrace=False,
        )
    return output


def python(*args, **kwargs):
    return run(sys.executable, *args, **kwargs)


def files():
    "What git keeps or would keep: tracked files, and untracked ones that are not ignored."
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return [ROOT / f for f in sorted(set(filter(None, listed))) if (ROOT / f).is_file()]


def copy(to):
    "The checkout as it stands, without what git ignores, as a repository of its own with one commit."
    for f in files():
        target = to / f.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(f, target, follow_symlinks=False)
    git = (
        "git",
        "-c",
        "user.name=test",
        "-c",
        "user.email=test@localhost",
        "-c",
        "core.hooksPath=/dev/null",
    )
    run(*git, "init", "-q", cwd=to)
    run(*git, "add", "-A", cwd=to)
    run(*git, "commit", "-qm", "as it stands", cwd=to)
    return to


def preloaded():
    "Exit status of a process that tells whether it began with the heavy imports done."
    sys.exit("preload" not in sys.modules)


def _command(words, output, prepare):
    os.setsid()
    for stream, path in zip((1, 2), output):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    prepare()
    from jet_anomaly.cli.main import main

    sys.exit(main([str(w) for w in words]))


class Command:
    "The command line in a process that begins with the heavy imports done, as `subprocess.Popen` would run it."

    def __init__(
        self,
        processes,  # the fixture
        folder,  # of its output
        *words,
        prepare=dict,  # called first
    ):
        self.output = [folder / name for name in ("out", "err")]
        self.process = processes.Process(target=_command, args=(words, self.output, prepare))
        self.process.start()
        self.pid = self.process.pid

    def poll(self):
        return self.process.exitcode

    returncode = property(poll)

    def wait(self, seconds):
        "Exit status, negative for the signal that ended it; fails when it takes longer."
        self.process.join(seconds)
        if self.process.is_alive():
            os.killpg(self.pid, signal.SIGKILL)
            pytest.fail(f"took longer than {seconds} s: {self.read()}", pytrace=False)
        return self.returncode

    def read(self):
        "Standard output and error so far."
        return [p.read_text() if p.is_file() else "" for p in self.output]

    def communicate(self, timeout):
        self.wait(timeout)
        return self.read()


@contextmanager
def house_colours():
    "Within it, a legend with a class of jets or a detector in a colour that is not its own is an error."
    from matplotlib.axes import Axes
    from matplotlib.colors import to_hex

    from jet_anomaly.evaluate import colours

    draw = Axes.legend

    def checked(ax, *args, **kwargs):
        for handle, label in zip(*ax.get_legend_handles_labels()):
            seen = next(filter(None, map(colours._main, colours._parts(handle))), None)
            own = colours.looks([label])[label][0]
            if colours.meaning(label) and seen not in (None, to_hex(own)):
                raise AssertionError(
                    f"{label} is {seen} and not {own}: draw the legend with evaluate.colours.legend"
                )
        return draw(ax, *args, **kwargs)

    Axes.legend = checked
    try:
        yield
    finally:
        Axes.legend = draw


def execute(chapter, output, around=nullcontext):
    """Run a chapter in this process; its output goes to a file, its children are killed with it.

    Overflow, 0/0 and log(0) that are not expected are errors, as pytest.ini has it for the tests; in children too.
    """
    os.setsid()
    os.environ["PYTHONWARNINGS"] = "error::RuntimeWarning"
    warnings.simplefilter("error", RuntimeWarning)
    with open(output, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(ROOT)
    from nbdev.config import get_config
    from nbdev.test import test_nb

    config = get_config()
    with around(), house_colours():
        flags = config.tst_flags.split()
        ok, _ = test_nb(Path(chapter), skip_flags=flags, basepath=config.config_path)
    sys.stdout.flush()
    sys.exit(not ok)


def run_chapter(processes, chapter, output, around=nullcontext):
    "Run a chapter in a process of its own, within a context; the test fails with its output when it fails."
    process = processes.Process(target=execute, args=(str(chapter), str(output), around))
    process.start()
    process.join(600)
    if process.exitcode != 0:
        if process.is_alive():
            os.killpg(process.pid, signal.SIGKILL)
        said = output.read_text()[-8000:] if output.is_file() else ""
        pytest.fail(f"exit {process.exitcode}: {name(chapter)}\n{said}", pytrace=False)
