"""The CUDA runtime through ctypes: devices, memory, streams, events and graphs.

Only functions whose signature is the same in CUDA 11.4 to 13 are called. Streams, events, graphs and memory are the
integers that the library gives: other users of CUDA in the process, as TensorRT, take them as they are.
"""

import ctypes
import importlib.util
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from ctypes import POINTER, c_char, c_char_p, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from dataclasses import dataclass
from functools import lru_cache
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posesdk_runtimes.errors import DeviceUnavailableError, MissingDependencyError, PoseSDKError, RuntimeFault

__all__ = ["SIGNATURES", "Cuda", "CudaDevice", "cuda_libraries", "host_bytes", "load_cuda"]

_log = logging.getLogger(__name__)

_HANDLE = POINTER(c_void_p)
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cudaRuntimeGetVersion": (POINTER(c_int),),
    "cudaDriverGetVersion": (POINTER(c_int),),
    "cudaGetDeviceCount": (POINTER(c_int),),
    "cudaGetDeviceProperties": (c_void_p, c_int),
    "cudaDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cudaGetDevice": (POINTER(c_int),),
    "cudaSetDevice": (c_int,),
    "cudaMemGetInfo": (POINTER(c_size_t), POINTER(c_size_t)),
    "cudaMalloc": (_HANDLE, c_size_t),
    "cudaFree": (c_void_p,),
    "cudaHostAlloc": (_HANDLE, c_size_t, c_uint),
    "cudaFreeHost": (c_void_p,),
    "cudaMemcpyAsync": (c_void_p, c_void_p, c_size_t, c_int, c_void_p),
    "cudaStreamCreateWithFlags": (_HANDLE, c_uint),
    "cudaStreamSynchronize": (c_void_p,),
    "cudaStreamDestroy": (c_void_p,),
    "cudaEventCreateWithFlags": (_HANDLE, c_uint),
    "cudaEventRecord": (c_void_p, c_void_p),
    "cudaEventSynchronize": (c_void_p,),
    "cudaEventDestroy": (c_void_p,),
    "cudaStreamBeginCapture": (c_void_p, c_int),
    "cudaStreamEndCapture": (c_void_p, _HANDLE),
    "cudaGraphInstantiateWithFlags": (_HANDLE, c_void_p, c_ulonglong),
    "cudaGraphLaunch": (c_void_p, c_void_p),
    "cudaGraphExecDestroy": (c_void_p,),
    "cudaGraphDestroy": (c_void_p,),
}
"""What is called, with its arguments, all of it giving an error code (cuda_runtime_api.h).

`cudaGraphInstantiate` has five arguments in CUDA 11 and three from 12 on; `...WithFlags` has three from 11.4 to 13.
"""

_PROPERTIES_BYTES = 8192
"""More than any `cudaDeviceProp`, whose layout changes with each CUDA; its first 256 bytes are the name in all."""
_NAME_BYTES = 256
_INTEGRATED, _MAJOR, _MINOR = 18, 75, 76  # cudaDevAttr...
_TO_DEVICE, _TO_HOST = 1, 2  # cudaMemcpy...
_NON_BLOCKING = 1  # cudaStreamNonBlocking: does not wait for the default stream
_SLEEPING = 1 | 2  # cudaEventBlockingSync | cudaEventDisableTiming
_THREAD_LOCAL = 1  # cudaStreamCaptureModeThreadLocal: other threads may allocate while this one captures

_OUT_OF_MEMORY, _OLD_DRIVER = 2, 35
_UNAVAILABLE = {
    3: "check the NVIDIA driver with nvidia-smi",
    34: "install the NVIDIA driver: only its stub library is found",
    _OLD_DRIVER: "install or update the NVIDIA driver; nvidia-smi names the newest CUDA that it can run",
    46: "another program has the GPU for itself; close it, or use another GPU",
    100: "no NVIDIA GPU is visible; check nvidia-smi and CUDA_VISIBLE_DEVICES, and start containers with a GPU",
    101: "check the number of the device",
    802: "wait until the GPU is ready, or check the NVIDIA driver",
    803: "restart the machine: its NVIDIA driver and CUDA libraries do not fit each other",
    804: "update the NVIDIA driver: this GPU cannot run newer CUDA than the driver's own",
}
"""Errors that say that there is no usable device here, with what to do."""
_LOST = frozenset({700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 999})
"""Errors after which nothing of CUDA works in the process any more."""


_WHEELS = ("cu[0-9]*/lib/libcudart.so.*", "cuda_runtime/lib/libcudart.so.*")
_LOADER = ("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0")
_FOLDERS = ("/usr/local/cuda/lib64/libcudart.so.*", "/usr/local/cuda/targets/*/lib/libcudart.so.*")


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """One GPU; an `integrated` one, as on a Jetson, shares the memory of the CPU."""

    index: int
    name: str
    compute_capability: tuple[int, int]
    integrated: bool


class Cuda:
    """One loaded libcudart. Methods raise DeviceUnavailableError where no GPU can be used, else RuntimeFault.

    The current device is a matter of each thread: work on a device stands inside `with cuda.on(index)`.
    """

    def __init__(self, library: Any, path: str) -> None:
        self.path = path
        self._library = library
        for name, arguments in SIGNATURES.items():
            function = getattr(library, name, None)
            if function is None:  # CUDA older than 11.4; `_call` says so
                continue
            function.argtypes, function.restype = arguments, c_int
        library.cudaGetErrorString.argtypes, library.cudaGetErrorString.restype = (c_int,), c_char_p
        library.cudaGetLastError.argtypes, library.cudaGetLastError.restype = (), c_int
        version = self._integer("cudaRuntimeGetVersion", "ask for the CUDA version")
        self.version = version // 1000, version % 1000 // 10
        """Of the runtime: (12, 6)."""

    @property
    def driver_version(self) -> tuple[int, int]:
        """The newest CUDA that the installed driver can run; (0, 0) without a driver."""
        version = self._integer("cudaDriverGetVersion", "ask for the driver's CUDA version")
        return version // 1000, version % 1000 // 10

    def device_count(self) -> int:
        """How many GPUs there are, at least one."""
        return self._integer("cudaGetDeviceCount", "look for NVIDIA GPUs")

    def device(self, index: int) -> CudaDevice:
        """What GPU `index` is."""
        count = self.device_count()
        if not 0 <= index < count:
            raise DeviceUnavailableError(
                f"cannot use cuda:{index}: CUDA finds {', '.join(f'cuda:{number}' for number in range(count))} here; "
                "use one of these"
            )
        properties = (c_char * _PROPERTIES_BYTES)()
        self._call(f"ask what cuda:{index} is", "cudaGetDeviceProperties", properties, index)
        name = bytes(properties)[:_NAME_BYTES].split(b"\0")[0].decode(errors="replace")
        major, minor, integrated = (self._attribute(index, number) for number in (_MAJOR, _MINOR, _INTEGRATED))
        return CudaDevice(index, name, (major, minor), bool(integrated))

    def memory(self) -> tuple[int, int]:
        """Bytes of the current device: free, in all."""
        free, total = c_size_t(), c_size_t()
        self._call("ask for the GPU's memory", "cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    @contextmanager
    def on(self, index: int) -> Iterator[None]:
        """Makes GPU `index` the current one of this thread, and the one from before again at the end."""
        before = self._integer("cudaGetDevice", "ask for the current GPU")
        if before == index:
            yield
            return
        self._call(f"use cuda:{index}", "cudaSetDevice", index)
        try:
            yield
        finally:
            self._quietly("cudaSetDevice", before)

    def allocate(self, size: int) -> int:
        """The address of `size` bytes on the current device."""
        return self._handle(f"allocate {size} bytes on the GPU", "cudaMalloc", size)

    def free(self, address: int) -> None:
        """Gives back what `allocate` gave; like the other ends of things, never raises."""
        self._quietly("cudaFree", address)

    def allocate_host(self, size: int) -> int:
        """The address of `size` bytes of memory that is pinned: copies from and to it run beside the CPU."""
        return self._handle(f"allocate {size} bytes of pinned memory", "cudaHostAlloc", size, 0)

    def free_host(self, address: int) -> None:
        """Gives back what `allocate_host` gave."""
        self._quietly("cudaFreeHost", address)

    def copy_to_device(self, device: int, host: int, size: int, stream: int) -> None:
        """Queues a copy of `size` bytes."""
        self._call("copy to the GPU", "cudaMemcpyAsync", device, host, size, _TO_DEVICE, stream)

    def copy_to_host(self, host: int, device: int, size: int, stream: int) -> None:
        """Queues a copy of `size` bytes."""
        self._call("copy from the GPU", "cudaMemcpyAsync", host, device, size, _TO_HOST, stream)

    def create_stream(self) -> int:
        """A queue of work on the current device."""
        return self._handle("make a CUDA stream", "cudaStreamCreateWithFlags", _NON_BLOCKING)

    def synchronize(self, stream: int) -> None:
        """Waits, at the full load of one core, until the queue is empty."""
        self._call("wait for the GPU", "cudaStreamSynchronize", stream)

    def destroy_stream(self, stream: int) -> None:
        """Ends a stream."""
        self._quietly("cudaStreamDestroy", stream)

    def create_event(self) -> int:
        """A mark in a stream; waiting for it leaves the CPU to others."""
        return self._handle("make a CUDA event", "cudaEventCreateWithFlags", _SLEEPING)

    def record(self, event: int, stream: int) -> None:
        """Puts the mark behind everything that is in the queue."""
        self._call("mark a CUDA stream", "cudaEventRecord", event, stream)

    def wait(self, event: int) -> None:
        """Sleeps until the mark is reached. Faults of the work before it arrive here."""
        self._call("wait for the GPU", "cudaEventSynchronize", event)

    def destroy_event(self, event: int) -> None:
        """Ends an event."""
        self._quietly("cudaEventDestroy", event)

    def begin_capture(self, stream: int) -> None:
        """From here on what is put into the stream is written down in place of being done."""
        self._call("begin a CUDA graph", "cudaStreamBeginCapture", stream, _THREAD_LOCAL)

    def end_capture(self, stream: int) -> int:
        """What was written down, ready for `launch`."""
        graph = self._handle_last("end a CUDA graph", "cudaStreamEndCapture", stream)
        try:
            return self._handle("make a CUDA graph ready", "cudaGraphInstantiateWithFlags", graph, 0)
        finally:
            self._quietly("cudaGraphDestroy", graph)

    def drop_capture(self, stream: int) -> None:
        """Ends a capture that failed; the stream is as before."""
        graph = c_void_p()
        self._quietly("cudaStreamEndCapture", stream, ctypes.byref(graph))
        if graph.value:
            self._quietly("cudaGraphDestroy", graph.value)

    def launch(self, graph: int, stream: int) -> None:
        """Queues all the work of a graph."""
        self._call("start a CUDA graph", "cudaGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        """Ends a graph."""
        self._quietly("cudaGraphExecDestroy", graph)

    def _attribute(self, index: int, number: int) -> int:
        value = c_int()
        self._call(f"ask what cuda:{index} is", "cudaDeviceGetAttribute", ctypes.byref(value), number, index)
        return value.value

    def _integer(self, name: str, doing: str) -> int:
        value = c_int()
        self._call(doing, name, ctypes.byref(value))
        return value.value

    def _handle(self, doing: str, name: str, *arguments: int) -> int:
        value = c_void_p()
        self._call(doing, name, ctypes.byref(value), *arguments)
        return value.value or 0

    def _handle_last(self, doing: str, name: str, *arguments: int) -> int:
        value = c_void_p()
        self._call(doing, name, *arguments, ctypes.byref(value))
        return value.value or 0

    def _call(self, doing: str, name: str, *arguments: Any) -> None:
        function = getattr(self._library, name, None)
        if function is None:
            raise RuntimeFault(f"cannot {doing}: {self.path} has no {name}; install CUDA 11.4 or newer")
        code = function(*arguments)
        if code:
            self._library.cudaGetLastError()  # else the next user of CUDA in this thread finds it
            raise self._error(code, doing)

    def _quietly(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            self._library.cudaGetLastError()
            _log.debug("%s gave error %d", name, code)

    def _error(self, code: int, doing: str) -> PoseSDKError:
        text = self._library.cudaGetErrorString(code).decode(errors="replace")
        message = f"cannot {doing}: {text} (CUDA error {code})"
        if code in _UNAVAILABLE:
            return DeviceUnavailableError(f"{message}; {_UNAVAILABLE[code]}")
        if code == _OUT_OF_MEMORY:
            return RuntimeFault(f"{message}; close other programs that use the GPU, or use a smaller model")
        if code in _LOST:
            return RuntimeFault(f"{message}; CUDA cannot be used in this process any more, start the program again")
        return RuntimeFault(message)


def host_bytes(address: int, size: int) -> NDArray[np.uint8]:
    """The `size` bytes of host memory at an address, not owned."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


def load_cuda() -> Cuda:
    """The CUDA runtime of this machine: the first one found that the driver can run, else the first one.

    Raises MissingDependencyError where there is none. Whether there is a GPU shows `Cuda.device_count`.
    """
    return _load(cuda_libraries())


def cuda_libraries() -> tuple[str, ...]:
    """Where a libcudart may be: in wheels of this environment, known to the loader, in JetPack's and CUDA's folders."""
    spec = importlib.util.find_spec("nvidia")
    wheels = [Path(folder) for folder in (spec.submodule_search_locations if spec else None) or ()]
    inside = [path for folder in wheels for part in _WHEELS for path in sorted(glob(f"{folder}/{part}"), reverse=True)]
    outside = [path for pattern in _FOLDERS for path in sorted(glob(pattern), reverse=True)]
    return tuple(dict.fromkeys((*inside, *_LOADER, *outside)))


@lru_cache(maxsize=1)
def _load(paths: Sequence[str]) -> Cuda:
    first: Cuda | None = None
    for path in paths:
        try:
            cuda = Cuda(ctypes.CDLL(path), path)
        except (OSError, AttributeError):
            continue
        first = first or cuda
        with suppress(PoseSDKError):
            cuda.device_count()
            return cuda
    if first is None:
        raise MissingDependencyError(
            "cannot use CUDA: there is no libcudart here; on a Jetson it comes with JetPack (apt-get install "
            "nvidia-jetpack), elsewhere `pip install nvidia-cuda-runtime`"
        )
    return first
