"""What a file can set for the whole process, one `Setting` each: what it is called, how it is read and written.

Nothing here imports torch: its settings are read where it is loaded already.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

VARIABLES = (
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "NUMEXPR_", "DNNL_", "ONEDNN_", "MALLOC_", "LD_PRELOAD"),
    *("TORCH", "PYTORCH_", "CUDA_", "CUBLAS_", "CUDNN_", "NVIDIA_", "TRITON_", "PYTHONHASHSEED"),
)
"""Environment variables that begin so decide how torch and what it calls compute, here or in a child process."""

_CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
"""Torch sets them itself when its compiler is loaded, to what it would use anyway."""

_BESIDE = {
    *("tracing_state", "value_trace", "graph_exec_group", "thread_name", "tensor_metadata", "dispatch_mode"),
    *("deterministic_algorithms", "warnAlways", "backcompat_broadcast_warn", "backcompat_keepdim_warn"),
}
"""What `torch._C` can get and set too, and is no setting, or is among those that are read otherwise."""

_SDP = {
    "flash": ("_get_flash_sdp_enabled", "_set_sdp_use_flash"),
    "memory-efficient": ("_get_mem_efficient_sdp_enabled", "_set_sdp_use_mem_efficient"),
    "plain": ("_get_math_sdp_enabled", "_set_sdp_use_math"),
    "cuDNN's": ("_get_cudnn_sdp_enabled", "_set_sdp_use_cudnn"),
}
_PRECISIONS = (
    *(("generic", "all"), ("cuda", "all"), ("cuda", "matmul"), ("cuda", "conv"), ("cuda", "rnn")),
    *(("mkldnn", "all"), ("mkldnn", "matmul"), ("mkldnn", "conv"), ("mkldnn", "rnn")),
)
_CONFIGS = ("torch._dynamo.config", "torch._inductor.config", "torch._functorch.config")


@dataclass(frozen=True)
class Setting:
    """One thing that holds for the whole process. `read` gives a value that later changes leave alone."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]
    show: Callable[[Any], str] | None = None
    """A value in words, where its own are none."""

    def said(self, before: Any, now: Any) -> str:
        """What became of it: `off instead of on`."""
        show = self.show or _word
        if isinstance(now, Mapping):
            keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
            return ", ".join(f"{key} {_word(now.get(key))} instead of {_word(before.get(key))}" for key in keys)
        return f"{show(now)} instead of {show(before)}"


def settings() -> list[Setting]:
    """All settings of this process, torch's among them once it is loaded, in the order in which they are put back."""
    return [*(torchs() if "torch" in sys.modules else ()), *_pythons()]


def torchs() -> list[Setting]:
    """Torch's settings alone: what code that runs, and is not only loaded, may leave behind as well."""
    return [setting for part in (_autograds, _tensors, _kernels, _hooks, _compilers) for setting in part()]


def generators() -> list[Setting]:
    """The random generators that everybody draws from, by whose they are; read as their whole state."""
    found = [Setting("Python's random numbers", random.getstate, random.setstate, _drawn)]
    if numpy := sys.modules.get("numpy"):
        state = numpy.random.mtrand._rand
        found.append(Setting("NumPy's random numbers", partial(_numpy_state, state), state.set_state, _drawn))
    torch = sys.modules.get("torch")
    if torch is not None:
        found.append(Setting("torch's random numbers", partial(_torch_state, torch), partial(_set_torch_state, torch)))
    return found


def torch_seed() -> int | None:
    """What torch's generator was seeded with last; None before torch is loaded."""
    torch = sys.modules.get("torch")
    return torch.initial_seed() if torch is not None else None


def mark_torch_seed() -> int | None:
    """Seed torch's generator with a number that no file would, so that any seed of a file's own shows; that number."""
    torch = sys.modules.get("torch")
    return torch.default_generator.manual_seed(_NOBODYS_SEED).initial_seed() if torch is not None else None


_NOBODYS_SEED = 6_028_318_530_717_958


def _numpy_state(generator: Any) -> tuple[Any, ...]:
    kind, keys, *rest = generator.get_state()
    return (kind, tuple(keys.tolist()), *rest)  # an array would be compared element by element


def _torch_state(torch: Any) -> tuple[bytes, ...]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return tuple(bytes(state.numpy()) for state in (torch.get_rng_state(), *cuda))


def _set_torch_state(torch: Any, states: tuple[bytes, ...]) -> None:
    cpu, *cuda = (torch.tensor(list(state), dtype=torch.uint8, device="cpu") for state in states)
    torch.set_rng_state(cpu)
    for index, state in enumerate(cuda):
        torch.cuda.set_rng_state(state, index)


def _autograds() -> Iterator[Setting]:
    """Inference mode first: leaving it sets the others."""
    torch: Any = sys.modules["torch"]
    yield Setting("inference mode", torch.is_inference_mode_enabled, partial(_set_inference, torch))
    yield Setting("grad mode", torch.is_grad_enabled, torch.set_grad_enabled)
    yield Setting(
        "anomaly detection",
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda both: torch.set_anomaly_enabled(*both),
        lambda both: _word(both[0]),
    )
    if hasattr(torch._C, "_is_multithreading_enabled"):
        yield Setting("threads of autograd", torch._C._is_multithreading_enabled, torch._C._set_multithreading_enabled)
    autograd = torch._C._autograd
    yield Setting("hooks on saved tensors", partial(_saved_hooks, autograd), partial(_set_saved_hooks, autograd), _some)
    for device in ("cpu", "cuda"):
        yield Setting(
            f"autocast on {device}",
            partial(_autocast, torch, device),
            partial(_set_autocast, torch, device),
            lambda both: f"to {_word(both[1])}" if both[0] else "off",
        )
    yield Setting("autocast cache", torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled)


_GUARDS: list[Any] = []
"""Inference mode holds for as long as a guard lives."""


def _set_inference(torch: Any, on: bool) -> None:
    _GUARDS.append(guard := torch._C._InferenceMode(on))
    guard.__enter__()


def _autocast(torch: Any, device: str) -> tuple[bool, Any]:
    return torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)


def _set_autocast(torch: Any, device: str, both: tuple[bool, Any]) -> None:
    torch.set_autocast_enabled(device, both[0])
    torch.set_autocast_dtype(device, both[1])
    if not both[0]:
        torch.clear_autocast_cache()


def _saved_hooks(autograd: Any) -> Any:
    return autograd._top_saved_tensors_default_hooks(True)


def _set_saved_hooks(autograd: Any, wanted: Any) -> None:
    while (top := _saved_hooks(autograd)) is not None and top != wanted:
        autograd._pop_saved_tensors_default_hooks()
    if top is None and wanted is not None:
        autograd._push_saved_tensors_default_hooks(*wanted)


def _tensors() -> Iterator[Setting]:
    torch: Any = sys.modules["torch"]
    yield Setting(
        "default device and modes", partial(_function_modes, torch), partial(_set_function_modes, torch), _modes
    )
    dispatch = sys.modules.get("torch.utils._python_dispatch")
    if dispatch is not None:
        yield Setting(
            "dispatch modes of torch", partial(_dispatch_modes, dispatch), partial(_drop_modes, dispatch), _some
        )
    yield Setting("default dtype", torch.get_default_dtype, torch.set_default_dtype)
    yield Setting("threads", torch.get_num_threads, torch.set_num_threads)
    yield Setting("inter-op threads", torch.get_num_interop_threads, torch.set_num_interop_threads)
    if torch.cuda.is_initialized():
        yield Setting("GPU", torch.cuda.current_device, torch.cuda.set_device)
    yield Setting("tensors flushed to 0 where tiny", _flushes, torch.set_flush_denormal)
    future = torch.__future__
    for what in ("overwrite_module_params_on_conversion", "swap_module_params_on_conversion"):
        get, put = getattr(future, f"get_{what}", None), getattr(future, f"set_{what}", None)
        if get and put:
            yield Setting(what.replace("_", " "), get, put)


def _function_modes(torch: Any) -> tuple[Any, ...]:
    """The modes that see every call, the device that tensors are made on, and who made that the default."""
    device = sys.modules.get("torch.utils._device")  # loaded with the first default device
    stack = [torch._C._get_function_stack_at(i) for i in range(torch._C._len_torch_function_stack())]
    default = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return (tuple(stack), getattr(device, "CURRENT_DEVICE", None), default)


def _set_function_modes(torch: Any, wanted: tuple[Any, ...]) -> None:
    stack, current, default = wanted
    for _ in range(torch._C._len_torch_function_stack()):
        torch._C._pop_torch_function_stack()
    for mode in stack:
        torch._C._push_on_torch_function_stack(mode)
    if device := sys.modules.get("torch.utils._device"):
        device.CURRENT_DEVICE = current  # type: ignore[attr-defined]
    torch._GLOBAL_DEVICE_CONTEXT.device_context = default


def _modes(state: tuple[Any, ...]) -> str:
    stack = state[0]
    devices = [f"tensors made on {mode.device}" for mode in stack if type(mode).__name__ == "DeviceContext"]
    return ", ".join(devices + [type(m).__name__ for m in stack if type(m).__name__ != "DeviceContext"]) or "none"


def _dispatch_modes(dispatch: Any) -> tuple[Any, ...]:
    return tuple(dispatch._get_current_dispatch_mode_stack())


def _drop_modes(dispatch: Any, wanted: tuple[Any, ...]) -> None:
    while len(_dispatch_modes(dispatch)) > len(wanted):
        dispatch._pop_mode()


def _flushes() -> bool:
    """Whether this thread's arithmetic loses numbers below the least normal one; Python's own is done by it too."""
    return sys.float_info.min / _TWO[0] == 0.0


_TWO = [2.0]
"""In a list, so that Python does not divide beforehand."""


def _kernels() -> Iterator[Setting]:
    """Which kernels compute, and how exactly: all that torch's core lets anybody get and set, by torch's own names."""
    torch: Any = sys.modules["torch"]
    core = torch._C
    yield Setting(
        "deterministic algorithms",
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        lambda both: torch.use_deterministic_algorithms(both[0], warn_only=both[1]),
        lambda both: ("warned of" if both[1] else "on") if both[0] else "off",
    )
    names = [name.removeprefix("_get_") for name in dir(core) if name.startswith("_get_")]
    for name in names:
        put = getattr(core, f"_set_{name}", None)
        if put is not None and name not in _BESIDE:
            read = partial(_read_or_none, getattr(core, f"_get_{name}"))
            yield Setting(name.replace("_", " "), read, partial(_write_any, put))
    for kind, (get, put) in _SDP.items():
        if hasattr(core, get) and hasattr(core, put):
            yield Setting(f"{kind} attention", getattr(core, get), getattr(core, put))
    if hasattr(core, "_get_fp32_precision_getter"):
        # After those above: what an older switch set is told, and put back, by the newer one as well.
        for backend, op in _PRECISIONS:
            read = partial(_read_or_none, partial(core._get_fp32_precision_getter, backend, op))
            yield Setting(
                f"fp32 precision of {backend} {op}", read, partial(core._set_fp32_precision_setter, backend, op)
            )
    backends = torch.backends
    yield Setting("fast path of attention", backends.mha.get_fastpath_enabled, backends.mha.set_fastpath_enabled)
    for what in ("enabled", "strategy"):
        yield _attribute(backends.opt_einsum, what, f"opt_einsum {what}")


def _read_or_none(read: Callable[[], Any]) -> Any:
    """What it gives; None where torch refuses to tell an older switch because a newer one was used."""
    try:
        value = read()
    except (RuntimeError, TypeError):
        return None
    return tuple(value) if isinstance(value, list) else value


def _write_any(write: Callable[..., object], value: Any) -> None:
    """Torch wants what it gave as one value, as several, or as a list."""
    if not isinstance(value, tuple):
        write(value)
        return
    try:
        write(*value)
    except TypeError:
        write(list(value))


def _hooks() -> Iterator[Setting]:
    """Hooks that every module and every optimizer calls."""
    for where in ("torch.nn.modules.module", "torch.optim.optimizer"):
        holder = sys.modules.get(where)
        for name, held in list(vars(holder).items()) if holder else ():
            if name.startswith("_global_") and isinstance(held, dict):
                words = name.removeprefix("_global_").replace("_", " ")
                of = "every module" if where.startswith("torch.nn") else "every optimizer"
                yield Setting(f"{words} of {of}", partial(_items, held), partial(_refill, held), _some)
        if holder is not None and hasattr(holder, "_global_is_full_backward_hook"):
            yield _attribute(holder, "_global_is_full_backward_hook", "backward hooks of every module")


def _items(held: dict[Any, Any]) -> tuple[Any, ...]:
    return tuple(held.items())


def _refill(held: dict[Any, Any], items: tuple[Any, ...]) -> None:
    held.clear()
    held.update(items)


def _compilers() -> Iterator[Setting]:
    """The compiler's stance and its options; a part that is not loaded is as torch has it."""
    yield Setting(
        "torch.compile's stance", _stance, _set_stance, lambda stance: str(getattr(stance, "stance", "default"))
    )
    for name in _CONFIGS:
        yield Setting(f"options of {name}", partial(_options, name), partial(_set_options, name))


def _stance() -> Any:
    frames: Any = sys.modules.get("torch._dynamo.eval_frame")
    stance = getattr(frames, "_stance", None)
    return None if stance is None or stance == type(stance)() else stance


def _set_stance(stance: Any) -> None:
    frames: Any = sys.modules["torch._dynamo.eval_frame"]
    frames._set_stance(type(frames._stance)() if stance is None else stance)


def _options(name: str) -> Mapping[str, Any]:
    config: Any = sys.modules.get(name)
    if config is None or not hasattr(config, "_is_default"):
        return {}
    changed = (key for key in list(config._config) if not config._is_default(key))
    return {key: value for key in changed if (value := getattr(config, key)) != config._config[key].default}


def _set_options(name: str, wanted: Mapping[str, Any]) -> None:
    config: Any = sys.modules[name]
    for key in {*_options(name), *wanted}:
        setattr(config, key, wanted[key] if key in wanted else config._config[key].default)


def _pythons() -> Iterator[Setting]:
    yield Setting("environment variables", _variables, _set_variables)
    yield Setting("current directory", _directory, os.chdir)
    yield Setting("garbage collection", gc.isenabled, lambda on: gc.enable() if on else gc.disable())
    yield Setting("garbage collection's thresholds", gc.get_threshold, lambda three: gc.set_threshold(*three))
    yield Setting("Python's switch interval", sys.getswitchinterval, sys.setswitchinterval)
    yield Setting("tracing of Python's calls", sys.gettrace, sys.settrace, _some)
    yield Setting("profiling of Python's calls", sys.getprofile, sys.setprofile, _some)
    yield Setting("warnings that raise", _raising, _set_raising, lambda filters: str(len(filters)))
    if hasattr(os, "sched_getaffinity"):
        yield Setting(
            "cores it may use", lambda: os.sched_getaffinity(0), lambda some: os.sched_setaffinity(0, some), _cores
        )
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            yield Setting(
                f"handler of {number.name}", partial(signal.getsignal, number), partial(signal.signal, number)
            )
    if numpy := sys.modules.get("numpy"):
        yield Setting("NumPy's errors", numpy.geterr, lambda how: numpy.seterr(**how))
    if processes := sys.modules.get("multiprocessing"):
        start = partial(processes.get_start_method, allow_none=True)
        yield Setting("how processes start", start, partial(processes.set_start_method, force=True))
    if torch_processes := sys.modules.get("torch.multiprocessing"):
        put = torch_processes.set_sharing_strategy
        yield Setting("how tensors are shared", torch_processes.get_sharing_strategy, put)


def _variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(VARIABLES) and name not in _CACHES}


def _set_variables(wanted: Mapping[str, str]) -> None:
    for name in _variables():
        if name not in wanted:
            del os.environ[name]
    os.environ.update(wanted)


def _directory() -> str | None:
    with suppress(OSError):  # it was removed
        return os.getcwd()
    return None


def _raising() -> tuple[Any, ...]:
    return tuple(entry for entry in warnings.filters if entry[0] == "error")


def _set_raising(wanted: tuple[Any, ...]) -> None:
    warnings.filters[:] = [e for e in warnings.filters if e[0] != "error" or e in wanted]  # type: ignore[index]
    warnings._filters_mutated()  # type: ignore[attr-defined]


def _attribute(holder: Any, name: str, words: str) -> Setting:
    return Setting(words, lambda: getattr(holder, name, None), partial(setattr, holder, name))


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "unset" if value is None else str(value).removeprefix("torch.")


def _some(value: Any) -> str:
    return "some" if value else "none"


def _drawn(_state: Any) -> str:
    return "drawn from or seeded"


def _cores(some: Any) -> str:
    return f"{len(some)} ({', '.join(map(str, sorted(some)))})"
