"""What most chapters and commands need, loaded once: their processes start as copies of one that has imported this."""

import accelerate  # noqa: F401
import h5py  # noqa: F401
import IPython.display  # noqa: F401
import jinja2  # noqa: F401
import matplotlib.pyplot  # noqa: F401
import nbdev.test  # noqa: F401
import numba
import PIL.Image  # noqa: F401
import pooch  # noqa: F401
import scipy.stats  # noqa: F401
import sklearn.ensemble  # noqa: F401
import torch._dynamo  # noqa: F401  the first optimiser loads it

numba.njit(lambda x: x + 1)(1.0)  # the first kernel loads a thousand modules
