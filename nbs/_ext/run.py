"""Run chapters top to bottom and keep their outputs:  python nbs/_ext/run.py nbs/jet/jets.ipynb …

Cells marked `#| eval: false` are not run and keep the outputs they have, so that a result made on a bigger machine survives.
With JET_ANOMALY_FULL=1 they are run, too, but for those that install.
Each chapter runs in its own folder, as nbdev runs it, and is written back only when all of it has run.
"""

import argparse
import os
import sys
from pathlib import Path

import nbformat
from figures import palette
from nbclient import NotebookClient


def stands(cell):
    "Is this a cell that keeps its output?"
    full = os.environ.get("JET_ANOMALY_FULL") and "pip install" not in cell.source
    return cell.cell_type == "code" and "#| eval: false" in cell.source and not full


class Runner(NotebookClient):
    async def async_execute_cell(self, cell, cell_index, **kwargs):
        if stands(cell):
            return cell
        return await super().async_execute_cell(cell, cell_index, **kwargs)


def joined(outputs):
    "What a cell printed piece by piece is one output."
    out = []
    for o in outputs:
        if out and o.output_type == out[-1].output_type == "stream":
            out[-1].text += o.text
        else:
            out.append(o)
    return out


def quiet(cell):
    "Progress bars and warnings belong to the run, not to the page."
    if cell.cell_type == "code":
        cell.outputs = joined(
            o
            for o in cell.outputs
            if not (o.output_type == "stream" and o.name == "stderr")
            and "application/vnd.jupyter.widget-view+json" not in o.get("data", {})
        )
        cell.execution_count = None
        for output in cell.outputs:
            if "execution_count" in output:
                output["execution_count"] = None
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = palette(output.data["image/png"])
        cell.metadata.pop("execution", None)


def run(path, timeout=3600):
    nb = nbformat.read(path, as_version=4)
    root = Path(__file__).resolve().parents[2]
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    Runner(
        nb,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(Path(path).parent)}},
    ).execute()
    for cell in nb.cells:
        quiet(cell)
    nb.metadata = {
        "kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}
    }
    nbformat.write(nb, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("chapters", nargs="+", type=Path)
    parser.add_argument("--timeout", type=int, default=3600, help="seconds a cell may take")
    args = parser.parse_args()
    for chapter in args.chapters:
        print(chapter, flush=True)
        run(chapter, args.timeout)
    sys.exit(0)
