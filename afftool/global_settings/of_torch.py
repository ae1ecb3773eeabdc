"""What torch holds for the whole process; read where it is loaded already, and never imported here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from afftool.global_settings.setting import Setting, attribute, some, word

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


def torchs() -> list[Setting]:
    """Torch's settings alone: what code that runs, and is not only loaded, may leave behind as well."""
    return [setting for part in (_autograds, _tensors, _kernels, _hooks, _compilers) for setting in part()]


def _autograds() -> Iterator[Setting]:
    """Inference mode first: leaving it sets the others."""
    torch: Any = sys.modules["torch"]
    yield Setting("inference mode", torch.is_inference_mode_enabled, partial(_set_inference, torch))
    yield Setting("grad mode", torch.is_grad_enabled, torch.set_grad_enabled)
    yield Setting(
        "anomaly detection",
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda both: torch.set_anomaly_enabled(*both),
        lambda both: word(both[0]),
    )
    if hasattr(torch._C, "_is_multithreading_enabled"):
        yield Setting("threads of autograd", torch._C._is_multithreading_enabled, torch._C._set_multithreading_enabled)
    autograd = torch._C._autograd
    yield Setting("hooks on saved tensors", partial(_saved_hooks, autograd), partial(_set_saved_hooks, autograd), some)
    for device in ("cpu", "cuda"):
        yield Setting(
            f"autocast on {device}",
            partial(_autocast, torch, device),
            partial(_set_autocast, torch, device),
            lambda both: f"to {word(both[1])}" if both[0] else "off",
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
            "dispatch modes of torch", partial(_dispatch_modes, dispatch), partial(_drop_modes, dispatch), some
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
        yield attribute(backends.opt_einsum, what, f"opt_einsum {what}")


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
                yield Setting(f"{words} of {of}", partial(_items, held), partial(_refill, held), some)
        if holder is not None and hasattr(holder, "_global_is_full_backward_hook"):
            yield attribute(holder, "_global_is_full_backward_hook", "backward hooks of every module")


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
