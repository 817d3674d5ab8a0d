"""A GPU for machines that have none: tensors that say they are on `cuda:0` and refuse to meet tensors of the CPU.

Their numbers are kept in ordinary tensors and computed by the CPU. As on a GPU, an operation on tensors of two devices
is a `RuntimeError`, and `numpy()` a `TypeError`; copies, single numbers and indices may come from the other side.
Not played: reduced precision, streams, memory, speed, random numbers of their own.
"""

import contextlib
from unittest import mock

import torch
import torch._dynamo  # the dispatch mode imports it, and must not while torch.cuda is played
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GPU, CPU = torch.device("cuda:0"), torch.device("cpu")
aten = torch.ops.aten
# operations that take tensors of two devices on a real GPU as well, by name
COPIES = {"copy_", "_to_copy", "copy"}
INDEXED = {"index", "index_put_", "index_put", "_index_put_impl_", "_unsafe_index"}
LENGTHS_ON_CPU = {"_pack_padded_sequence", "_pack_padded_sequence_backward", "_pad_packed_sequence"}


class There(torch.Tensor):
    "A tensor on the GPU that is not there."

    __torch_function__ = torch._C._disabled_torch_function_impl
    is_cuda, is_cpu, is_meta = True, False, False
    device = property(lambda self: GPU)

    @staticmethod
    def __new__(cls, here):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            here.shape,
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device="meta",
        )

    def __init__(self, here):
        self.here = here

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return dispatched(function, args, kwargs or {})

    @property
    def data(self):
        return self.detach()

    @data.setter
    def data(self, new):
        self.here = new.here

    def __repr__(self):
        return f"There({self.here!r})"

    def __deepcopy__(self, memo):
        new = There(self.here.clone()).requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            new = torch.nn.Parameter(new, self.requires_grad)
        return memo.setdefault(id(self), new)

    def to(self, *args, **kwargs):
        device, dtype, _, _ = torch._C._nn._parse_to(*args, **kwargs)
        moves = device is not None and device.type != "cuda"
        if not moves and (dtype is None or dtype == self.dtype) and not kwargs.get("copy"):
            return self
        return super().to(*args, **kwargs)

    def cuda(self, *args, **kwargs):
        return self

    def tolist(self):
        return self.cpu().tolist()

    def numpy(self, *args, **kwargs):
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy; copy it to the CPU first"
        )

    __array__ = numpy


class Generator(torch._C.Generator):
    "Random numbers for one of the two devices; both are drawn by the CPU."

    def __new__(cls, device="cpu"):
        self = super().__new__(cls)
        self.place = torch.device(device)
        return self

    def __init__(self, device="cpu"):
        super().__init__()

    device = property(lambda self: self.place)


def operation(function):
    return function.__name__.partition(".")[0]


def check(function, flat):
    "Raise where a real GPU would."
    there = [t for t in flat if isinstance(t, There)]
    name = operation(function)
    if not there or name in COPIES | LENGTHS_ON_CPU:
        return
    here = [t for t in flat if isinstance(t, torch.Tensor) and not isinstance(t, There)]
    if name in INDEXED and isinstance(flat[0], There):  # indices may be on the CPU
        here = [t for t in here if t.dtype not in (torch.int64, torch.bool)]
    if any(t.ndim for t in here) or (here and name in ("cat", "stack")):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but {name} met some on cuda:0 and some on cpu"
        )


def waits(function):
    "True where the CPU waits for what the GPU computes."
    tags = torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape
    return any(tag in function.tags for tag in tags)


def mapped(change, kind, x):
    "Lists and tuples of the arguments of an operation, with everything of a kind changed."
    if isinstance(x, kind):
        return change(x)
    if isinstance(x, (list, tuple)):
        return type(x)(mapped(change, kind, y) for y in x)
    return x


def dispatched(function, args, kwargs):
    "The operation on the numbers of its tensors; the result is where they were, or where it was sent."
    flat, device = [], kwargs.get("device")
    mapped(flat.append, torch.Tensor, [args, [*kwargs.values()]])
    check(function, flat)
    there = any(isinstance(t, There) for t in flat)
    named = META and device is not None and device.type == "meta"
    if named or any(t.device.type == "meta" for t in flat):  # tensors without numbers
        return function(*args, **kwargs)
    if there:
        args = mapped(lambda t: t.here, There, args)
        kwargs = {k: mapped(lambda t: t.here, There, v) for k, v in kwargs.items()}
    if device is not None:
        # autograd makes its zeros on what it takes for the device of such a tensor: meta
        there = device.type in ("cuda", "meta")
        kwargs = kwargs | {"device": CPU}
    kwargs.pop("pin_memory", None)
    out = function(*args, **kwargs)
    if Graph.open and there:
        if waits(function):
            raise RuntimeError("operation not permitted when stream is capturing")
        Graph.open.calls.append((function, args, kwargs, out))
    written = function._schema.arguments[:1]
    if written and written[0].alias_info and written[0].alias_info.is_write:
        return flat[0] if function._schema.returns else None  # in place: answer with it
    return mapped(There, torch.Tensor, out) if there else out


class Graph:
    "What was done between the beginning and the end of a capture, to be done again in the same places."

    open = None  # the one that is being captured

    def __init__(self):
        self.calls, self.generators = [], []

    def register_generator_state(self, generator):
        self.generators.append(generator)

    def replay(self):
        for function, args, kwargs, out in self.calls:
            again = function(*args, **kwargs)
            for old, new in zip(tree_leaves(out), tree_leaves(again)):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@contextlib.contextmanager
def capture(graph):
    "As on a GPU, a capture uses up no random numbers."
    random, Graph.open = torch.get_rng_state(), graph
    own = [g.get_state() for g in graph.generators]
    try:
        yield
    finally:
        Graph.open = None
        torch.set_rng_state(random)
        for generator, state in zip(graph.generators, own):
            generator.set_state(state)


class Stream:
    def wait_stream(self, other):
        pass

    def is_capturing(self):
        return Graph.open is not None


META = []  # filled while somebody asks for the device `meta` by name
MAKERS = torch.tensor, torch.as_tensor, torch.asarray


class AsCalled(TorchFunctionMode):
    """What an operation no longer sees: the device as it was named, and the generator.

    `cuda` becomes `cuda:0` (without a GPU nobody knows which one is meant); `torch.tensor` makes its tensor here first.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        def numbered(x):
            return GPU if isinstance(x, (str, torch.device)) and str(x) == "cuda" else x

        args, kwargs = (
            tuple(map(numbered, args)),
            {k: numbered(v) for k, v in (kwargs or {}).items()},
        )
        device = torch.device(kwargs.get("device") or "cpu")
        tensors = [t for t in args if isinstance(t, torch.Tensor)]
        place = tensors[0].device if tensors and kwargs.get("device") is None else device
        for g in (*args, *kwargs.values()):
            if isinstance(g, torch._C.Generator) and g.device.type != place.type:
                raise RuntimeError(
                    f"{function.__name__}: generator on {g.device}, tensor on {place}"
                )
        if device.type == "meta":
            META.append(device)
            try:
                return function(*args, **kwargs)
            finally:
                META.pop()
        if function is torch.Tensor.new_tensor and place.type == "cuda":
            return torch.tensor(*args[1:], dtype=kwargs.get("dtype", args[0].dtype)).to(GPU)
        if function is torch.Tensor.to and len(tensors) == 2:
            return args[0].to(args[1].device, args[1].dtype)
        if function in MAKERS and device.type == "cuda":
            return function(*args, **kwargs | {"device": CPU}).to(GPU)
        return function(*args, **kwargs)


class Elsewhere(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return dispatched(function, args, kwargs or {})


def nothing(*args, **kwargs):
    return None


PLAYED = {
    "is_available": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "is_current_stream_capturing": lambda: Graph.open is not None,
    "is_bf16_supported": lambda *a: False,
    "get_device_name": lambda *a: "a GPU that is played",
    "get_device_capability": lambda *a: (7, 5),
    "mem_get_info": lambda *a: (2**34, 2**34),
    "max_memory_allocated": lambda *a: 0,
    "get_rng_state": lambda *a: torch.get_rng_state(),
    "set_rng_state": lambda state, *a: torch.set_rng_state(state),
    "Stream": Stream,
    "current_stream": lambda *a: Stream(),
    "stream": lambda *a: contextlib.nullcontext(),
    "CUDAGraph": Graph,
    "graph": capture,
    **dict.fromkeys(
        (
            "_lazy_init",
            "set_device",
            "synchronize",
            "empty_cache",
            "reset_peak_memory_stats",
            "manual_seed",
            "manual_seed_all",
        ),
        nothing,
    ),
}


@contextlib.contextmanager
def gpu():
    "Within it, `torch.cuda.is_available()` is true and `auto` is a GPU, played by the CPU where there is none."
    if torch.cuda.is_available():
        yield GPU
        return
    before = {k: getattr(torch.cuda, k) for k in PLAYED} | {None: torch.Generator}
    for k, v in PLAYED.items():
        setattr(torch.cuda, k, v)
    torch.Generator = Generator
    # optimisers of newer versions ask there whether a graph is being recorded
    asked = getattr(torch, "accelerator", torch.cuda)
    recorded = mock.patch.object(asked, "current_stream", PLAYED["current_stream"])
    try:
        with AsCalled(), Elsewhere(), recorded:
            yield GPU
    finally:
        torch.Generator = before.pop(None)
        for k, v in before.items():
            setattr(torch.cuda, k, v)
