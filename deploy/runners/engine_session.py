"""A TensorRT engine on the GPU of this machine; both flavours go this way.

Memory is taken once, for the largest batch of the engine's profiles: page-locked on this side,
and on the GPU. A batch goes by the profile that fits it best. A larger one than all go through in
parts, a smaller one is filled up with zeros; every image is answered alone, so neither shows.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import BuildError, InputError
from deploy.engines.flavour import Flavour
from deploy.engines.log import TensorrtLog
from deploy.engines.manifest import Binding, Manifest
from deploy.engines.plan_loading import load_whole_plan, not_loaded
from deploy.engines.plan_weights import OnnxWeights
from deploy.machines.cuda import Cuda
from deploy.runners import Tensors
from deploy.runners.engine_files import EngineFiles
from deploy.runners.engine_profiles import profiles_of
from deploy.runners.kernel_cache import KernelCache

__all__ = ["EngineSession"]


@dataclass(frozen=True, slots=True, eq=False)
class _Buffer:
    """One input or output: its array here, and its address on the GPU."""

    host: npt.NDArray[Any]
    device: int


class EngineSession:
    """A loaded engine; call it with one array for its input (a ``Tensors -> Tensors`` runner).

    Any thread may call it; one is served at a time.

    Args:
        flavour: The TensorRT that loads it.
        plan: The plan's bytes, whose digest was checked: loading it runs its code.
        manifest: Its manifest.
        cuda: The GPU.
        files: What it needs besides its plan.

    Attributes:
        input: Its only input.
        outputs: What it answers.
        shapes: From the smallest batch that it takes to the largest.
        flavour: The TensorRT that runs it.
        engine: TensorRT's ``ICudaEngine``.
        context: TensorRT's ``IExecutionContext``.
        cuda: The GPU that it runs on.

    Raises:
        BuildError: TensorRT does not load it here.
        InputError: It is no network of one image, or has no weights and none were given.
        MissingBackendError: The GPU has too little memory.
    """

    def __init__(
        self,
        flavour: Flavour,
        plan: bytes,
        manifest: Manifest,
        cuda: Cuda,
        files: EngineFiles,
    ) -> None:
        if len(manifest.inputs) != 1:
            names = ", ".join(binding.name for binding in manifest.inputs)
            raise InputError(
                f"{manifest.plan}: {len(manifest.inputs)} inputs ({names}); Strata feeds one, the "
                "image",
                hint="export the network with its image as the only input",
            )
        self.flavour, self.cuda, self._lock = flavour, cuda, threading.Lock()
        self.input, self.outputs = manifest.inputs[0], manifest.outputs
        self._profiles = profiles_of(manifest)
        self._profile, self.shapes = self._profiles.largest, self._profiles.whole
        self._log = TensorrtLog()
        self._marks: list[Any] | None = None  # only while somebody asks what takes the time
        self._kernels = KernelCache(files.kernels)
        self._load(plan, manifest, files.weights)
        self._shape: tuple[int, ...] = ()
        self._set_shape(self.shapes.max)
        self._buffers = {
            binding.name: self._buffer(binding) for binding in (self.input, *self.outputs)
        }

    def _load(self, plan: bytes, manifest: Manifest, weights: OnnxWeights | None) -> None:
        with self.flavour.logging(self._log):
            # The runtime owns the engine's memory, the engine the context's: all are kept.
            self._runtime, self.engine = load_whole_plan(
                self.flavour, plan, manifest, self._log, weights
            )
            self.context = self._kernels.context(self.engine)
            ready = self.context and self.context.set_optimization_profile_async(
                self._profile, self.cuda.stream
            )
        if not ready:
            raise not_loaded(self.flavour, manifest, self._log)
        self.cuda.wait()

    def _buffer(self, binding: Binding) -> _Buffer:
        """Take memory for the largest batch, and tell TensorRT where it is."""
        shape = tuple(self.context.get_tensor_shape(binding.name))
        if min(shape, default=1) < 0:
            raise InputError(
                f"the shape of output {binding.name!r} depends on the data: {shape}",
                hint="name a classifier: it answers with one row an image",
            )
        host = self.cuda.host_array(shape, np.dtype(binding.dtype))
        device = self.cuda.device_bytes(host.nbytes)
        self.context.set_tensor_address(binding.name, device)
        return _Buffer(host, device)

    def __call__(self, feeds: Tensors) -> Tensors:
        """Run the engine.

        Args:
            feeds: The images, (n, …), by the name of the input.

        Returns:
            One array for each output, (n, …), by name.

        Raises:
            InputError: Images of another shape than the engine takes.
            BuildError: TensorRT refused to run it.
        """
        images = feeds[self.input.name]
        self._check(images)
        with self._lock, self.flavour.logging(self._log):
            self.cuda.enter()
            parts = [self._answer(part) for part in self._parts(images)]
            self._kernels.keep_first()
        return {
            binding.name: np.concatenate([part[binding.name] for part in parts])
            for binding in self.outputs
        }

    def _check(self, images: npt.NDArray[Any]) -> None:
        low, high = self.shapes.min[1:], self.shapes.max[1:]
        sizes = images.shape[1:]
        fits = len(sizes) == len(low) and all(
            a <= n <= b for a, n, b in zip(low, sizes, high, strict=True)
        )
        if not len(images) or not fits:
            takes = "×".join(map(str, high)) if low == high else f"{low} to {high}"
            raise InputError(
                f"input {self.input.name!r} takes images of {takes}, fed {images.shape}",
                hint="check the preprocessing: crop size, layout N×3×H×W",
            )

    def _parts(self, images: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
        largest = self.shapes.max[0]
        for start in range(0, len(images), largest):
            yield images[start : start + largest]

    def _answer(self, images: npt.NDArray[Any]) -> Tensors:
        """Run one batch of at most the largest profile's largest."""
        profile = self._profiles.fitting(len(images))
        self._use(profile)
        count = max(len(images), self._profiles.shapes[profile].min[0])
        self._set_shape((count, *images.shape[1:]))
        place = self._buffers[self.input.name]
        host = _reshaped(place.host, self._shape)
        host[: len(images)] = images  # converts to the engine's own type
        host[len(images) :] = 0
        self._mark()
        self.cuda.copy_in(place.device, host)
        self._mark()
        if not self.context.execute_async_v3(self.cuda.stream):
            raise BuildError(
                f"TensorRT refused to run the engine: {'; '.join(self._log.errors)}",
                hint="strata preflight says whether it fits; strata doctor what is here",
            )
        self._mark()
        answers = {}
        for binding in self.outputs:
            buffer = self._buffers[binding.name]
            shape = tuple(self.context.get_tensor_shape(binding.name))
            answers[binding.name] = _reshaped(buffer.host, shape)
            self.cuda.copy_out(answers[binding.name], buffer.device)
        self._mark()
        self.cuda.wait()
        return {name: array[: len(images)].copy() for name, array in answers.items()}

    def _mark(self) -> None:
        if self._marks is not None:
            self._marks.append(self.cuda.mark())

    def phases(self, feeds: Tensors) -> tuple[float, float, float]:
        """Run one batch, of at most the largest profile's largest; say what its time went into.

        Returns:
            Milliseconds on the GPU's own clock: copy to the GPU, kernels, copy from it.
        """
        images = feeds[self.input.name]
        self._check(images)
        with self._lock, self.flavour.logging(self._log):
            self.cuda.enter()
            self._marks = []
            try:
                self._answer(images)
                to_gpu, kernels, from_gpu = self.cuda.between(self._marks)
            finally:
                self._marks = None
        return to_gpu, kernels, from_gpu

    def _use(self, profile: int) -> None:
        """Go over to a profile; it knows nothing of shapes and addresses that were set before."""
        if profile == self._profile:
            return
        if not self.context.set_optimization_profile_async(profile, self.cuda.stream):
            raise BuildError(
                f"TensorRT refused the engine's profile {profile}: {'; '.join(self._log.errors)}",
                hint="build it again with one --batch; strata preflight says whether it fits",
            )
        self.cuda.wait()
        self._profile, self._shape = profile, ()
        for name, buffer in self._buffers.items():
            self.context.set_tensor_address(name, buffer.device)

    def _set_shape(self, shape: tuple[int, ...]) -> None:
        if shape != self._shape:
            self.context.set_input_shape(self.input.name, shape)
            self._shape = shape

    def keep_kernels(self) -> None:
        """Keep what was compiled so far for the next start."""
        with self._lock:
            self.cuda.enter()
            self._kernels.keep()

    def close(self) -> None:
        """Give back the engine and its memory."""
        with self._lock:
            self._buffers.clear()
            self.context = self.engine = self._runtime = None
            self.cuda.close()


def _reshaped(array: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the beginning of a buffer as a smaller array, contiguous as TensorRT has it."""
    count = int(np.prod(shape))
    return array.reshape(-1)[:count].reshape(shape)
