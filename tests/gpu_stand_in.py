# ruff: noqa: N802, N815 - the names are those of CUDA and TensorRT
"""A GPU and a TensorRT that are none: libcuda and a runtime over ordinary memory.

As on a GPU, nothing that was put on the stream happens before somebody waits for it; so code
that reuses a buffer too early, or reads one too early, gets wrong numbers here, too.
"""

import ctypes
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx

from deploy.engines.flavour import load_flavour
from deploy.machines.cuda import Cuda
from exporter.session import open_session


class Libcuda:
    """The functions of libcuda that Strata calls."""

    def __init__(self, memory=1 << 30):
        self.memory, self.taken, self.queue, self.calls = memory, {}, [], []
        self.now_ms, self.marks = 0.0, {}  # a copy takes 1 ms a kB, all else 5 ms

    def __getattr__(self, name):
        def plain(*arguments):
            self.calls.append(name)
            return 0

        return plain

    def _give(self, reference, count, kind):
        if count.value > self.memory:
            return 2
        self.memory -= count.value
        buffer = ctypes.create_string_buffer(count.value)
        buffer.raw = b"\x7f" * count.value  # nobody has cleared it
        address = ctypes.addressof(buffer)
        self.taken[address] = (buffer, kind)
        reference._obj.value = address
        return 0

    def cuMemAlloc_v2(self, reference, count):
        return self._give(reference, count, "device")

    def cuMemAllocHost_v2(self, reference, count):
        return self._give(reference, count, "host")

    def _back(self, address, kind):
        buffer, was = self.taken.pop(address.value)
        assert was == kind
        self.memory += len(buffer)
        return 0

    def cuMemFree_v2(self, address):
        return self._back(address, "device")

    def cuMemFreeHost(self, address):
        return self._back(address, "host")

    def cuDevicePrimaryCtxRetain(self, reference, device):
        self.calls.append(("device", device.value))
        reference._obj.value = 1
        return 0

    def cuDeviceGet(self, reference, number):
        reference._obj.value = number
        return 0 if number < 2 else 101

    def cuGetErrorString(self, code, reference):
        reference._obj.value = {2: b"out of memory", 101: b"invalid device ordinal"}[code]
        return 0

    def cuMemcpyHtoDAsync_v2(self, to, source, count, stream):
        def move():
            ctypes.memmove(to.value, source.value, count.value)
            return count.value / 1000

        self.queue.append(move)
        return 0

    cuMemcpyDtoHAsync_v2 = cuMemcpyHtoDAsync_v2

    def cuStreamSynchronize(self, stream):
        while self.queue:
            took = self.queue.pop(0)()
            self.now_ms += 5.0 if took is None else took
        return 0

    def cuDeviceGetName(self, name, count, device):
        name.value = b"GeForce of nowhere"
        return 0

    def cuDeviceGetPCIBusId(self, name, count, device):
        name.value = b"0000:01:00.0"
        return 0

    def cuEventCreate(self, reference, flags):
        reference._obj.value = len(self.marks) + 1
        self.marks[reference._obj.value] = None
        return 0

    def cuEventRecord(self, event, stream):
        def note():
            self.marks[event.value] = self.now_ms
            return 0.0

        self.queue.append(note)
        return 0

    def cuEventElapsedTime(self, reference, start, end):
        reference._obj.value = self.marks[end.value] - self.marks[start.value]
        return 0

    def cuEventDestroy_v2(self, event):
        self.calls.append(("event", event.value))
        return 0


class Libnvml:
    """The functions of NVML that Strata calls; one value is not to be had."""

    def __init__(self, reads=True):
        self.reads, self.asked = reads, []
        self.clocks = iter(range(1500, 10_000, 10))

    def nvmlInit_v2(self):
        return 0 if self.reads else 999

    def nvmlDeviceGetHandleByPciBusId_v2(self, address, reference):
        self.asked.append(address.value)
        reference._obj.value = 7
        return 0

    def nvmlDeviceGetClockInfo(self, device, kind, reference):
        assert device.value == 7
        reference._obj.value = next(self.clocks) if kind == 1 else 9001
        return 0

    def nvmlDeviceGetPowerUsage(self, device, reference):
        reference._obj.value = 71_500  # milliwatts
        return 0

    def nvmlDeviceGetTemperature(self, device, sensor, reference):
        return 3  # NVML_ERROR_NOT_SUPPORTED

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, device, reference):
        reference._obj.value = 0x1 | 0x4  # idle, power cap
        return 0


class Context:
    """An execution context that computes by ONNX Runtime; without weights it cannot."""

    def __init__(self, cuda, graph):
        self.cuda, self.run = cuda, open_session(graph, optimize=False)
        self.batch, self.addresses, self.profile = None, {}, None
        model = onnx.load_from_string(graph) if isinstance(graph, bytes) else onnx.load(graph)
        self.classes = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
        self.graph, self.listener, self.shown = graph, None, set()

    def set_debug_listener(self, listener):
        self.listener = listener
        return True

    def set_tensor_debug_state(self, name, flag):
        (self.shown.add if flag else self.shown.discard)(name)
        return True

    def show(self):
        """Call back for each tensor that is to be shown, before the call returns."""
        self.cuda.cuStreamSynchronize(None)  # what was copied in before is there
        place = (ctypes.c_float * int(np.prod(self.batch))).from_address(self.addresses["input"])
        images = np.frombuffer(place, np.float32).reshape(self.batch).copy()
        made = open_session(self.graph, outputs=sorted(self.shown))({"input": images})
        trt = load_flavour("rtx").module
        for name in sorted(self.shown):
            array = np.ascontiguousarray(made[name])
            capsule = ctypes.pythonapi.PyCapsule_New
            capsule.restype, capsule.argtypes = ctypes.py_object, [ctypes.c_void_p] * 3
            self.listener.process_debug_tensor(
                capsule(array.ctypes.data, None, None),
                trt.TensorLocation.DEVICE,
                {"float32": trt.float32, "float16": trt.float16}[str(array.dtype)],
                trt.Dims(array.shape),
                name,
                7,
            )

    def set_optimization_profile_async(self, index, stream):
        # A profile knows nothing of the shapes and addresses of another.
        self.profile, self.batch, self.addresses = index, None, {}
        return True

    def set_input_shape(self, name, shape):
        self.batch = shape
        return True

    def get_tensor_shape(self, name):
        return self.batch if name == "input" else (self.batch[0], self.classes)

    def set_tensor_address(self, name, address):
        self.addresses[name] = address

    def execute_async_v3(self, stream):
        shape = self.batch
        if self.shown:
            self.show()

        def work():
            place = (ctypes.c_float * int(np.prod(shape))).from_address(self.addresses["input"])
            images = np.frombuffer(place, np.float32).reshape(shape)
            logits = np.ascontiguousarray(self.run({"input": images.copy()})["logits"])
            ctypes.memmove(self.addresses["logits"], logits.ctypes.data, logits.nbytes)

        self.cuda.queue.append(work)
        return True


class RuntimeCache:
    """What a start compiles: nothing if all was handed over."""

    def __init__(self):
        self.kernels, self.compiled = b"", 0

    def deserialize(self, blob):
        fits = blob.startswith(b"kernels of this GPU")
        self.kernels = blob if fits else b""
        return fits

    def compile(self):
        if not self.kernels:
            self.kernels, self.compiled = b"kernels of this GPU", self.compiled + 1

    def serialize(self):
        return memoryview(self.kernels)


class RuntimeConfig:
    cache = None

    def create_runtime_cache(self):
        return RuntimeCache()

    def set_runtime_cache(self, cache):
        self.cache = cache
        return True


class Engine:
    """An engine of TensorRT-RTX: its contexts compile, or take what was compiled before."""

    def __init__(self, cuda, graph):
        self.cuda, self.graph, self.caches = cuda, graph, []
        self.flags, self.debug = [], frozenset()

    def is_debug_tensor(self, name):
        return name in self.debug

    def create_serialization_config(self):
        return SimpleNamespace(set_flag=self.flags.append)

    def serialize_with_config(self, config):
        return memoryview(b"a plan with the weights of " + self.graph)

    def create_runtime_config(self):
        return RuntimeConfig()

    def create_execution_context(self, config=None):
        if config is not None:
            config.cache.compile()
            self.caches.append(config.cache)
        return Context(self.cuda, self.graph)


class Refitter:
    """Takes weights by the parser below, and gives them to the engine when told to."""

    def __init__(self, engine, logger):
        self.engine, self.found, self.missing = engine, None, []

    def refit_cuda_engine(self):
        if self.missing or self.found is None:
            return False
        self.engine.graph = self.found
        return True

    def get_missing_weights(self):
        return self.missing


class OnnxParserRefitter:
    """Finds in an ONNX file the weights that an engine lacks."""

    WANTED = frozenset({"fc.bias"})

    def __init__(self, refitter, logger):
        self.refitter, self.num_errors = refitter, 0

    def refit_from_bytes(self, data, path):
        names = {i.name for i in onnx.load_from_string(data).graph.initializer}
        if not names >= self.WANTED:
            self.num_errors = 1
            return False
        self.refitter.found = data
        return True

    def get_error(self, at):
        lacks = ", ".join(self.WANTED)
        return SimpleNamespace(desc=lambda: f"[x.cpp:f:1] no initializer named {lacks}")


class Module:
    """The real bindings, with another runtime."""

    Refitter = Refitter
    OnnxParserRefitter = OnnxParserRefitter
    engine_host_code_allowed = False

    def __init__(self, real, engine, seen):
        self.real, self.engine, self.seen = real, engine, seen

    def __getattr__(self, name):
        return getattr(self.real, name)

    def Runtime(self, logger):
        return self

    def deserialize_cuda_engine(self, plan):
        self.seen.append(bytes(plan))
        return self.engine


def stand_ins(graph, *, memory=1 << 30):
    """A flavour that builds as TensorRT-RTX does and runs ``graph``; a libcuda; plans it saw."""
    library, seen = Libcuda(memory), []
    real = load_flavour("rtx")
    flavour = replace(real, module=Module(real.module, Engine(library, graph), seen))
    return flavour, library, seen


def cuda_of(library):
    return lambda device=0: Cuda(library, device)
