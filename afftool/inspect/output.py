"""What comes out: of maps as a fusion gets them, of one image, of maps that do not fit, and of the same maps again."""

from __future__ import annotations

import math

import torch

from afftool.backends.outputs import nonfinite_share
from afftool.failure import Failure
from afftool.inspect.finding import Finding
from afftool.inspect.subject import RAISED, SAME, Subject, as_given, call, dtype_name, first_line, first_map, rms
from afftool.measure.cost.reading import CUT_BY, input_names


def output(subject: Subject) -> list[Finding]:
    """What it returns in eval, and whether that trains. Raises what the module raises in eval."""
    maps = subject.maps()
    with torch.no_grad():
        given = subject.module()(*maps)
    out = first_map(given)
    findings = _one_map(given) + _like_its_inputs(out, maps)
    known = [f.measured for f in findings]
    # What is not finite in eval need not be told of training too.
    told = any(measured.get("finite") is False for measured in known)
    findings += [f for f in _training(subject) if not (told and f.measured.get("finite") is False)]
    if findings:
        return findings
    measured = {"shape": list(out.shape), "dtype": dtype_name(out.dtype)}
    return [Finding(severity="ok", what=f"one finite map of shape {tuple(out.shape)}", measured=measured)]


def _one_map(given: object) -> list[Finding]:
    if isinstance(given, torch.Tensor):
        return []
    return [
        Finding(
            severity="fault",
            what=f"it returns a {type(given).__name__}, not one feature map; what follows is about the first map in it",
            why="A fusion takes the place of an addition: what comes next expects one tensor.",
            do="Return the fused map alone, and keep what else is of interest as an attribute.",
            measured={"returns": type(given).__name__},
        )
    ]


def _like_its_inputs(out: torch.Tensor, maps: list[torch.Tensor]) -> list[Finding]:
    """Its shape is that of one of its inputs, which are alike but where a fusion is told others."""
    findings, x = [], maps[0]
    measured = {"shape": list(out.shape), "dtype": dtype_name(out.dtype)}
    if out.shape not in [one.shape for one in maps]:
        findings.append(
            Finding(
                severity="fault",
                what=f"maps of shape {tuple(x.shape)} give one of shape {tuple(out.shape)}",
                why="A fusion takes the place of an addition, so its output must have the shape of its inputs.",
                do="Project or resize inside, or outside before fusing.",
                measured=measured,
            )
        )
    if not bool(torch.isfinite(out).all()):
        findings.append(_not_finite("the output of finite inputs is not finite", out))
    if out.dtype != x.dtype:
        findings.append(
            Finding(
                severity="warning",
                what=f"{x.dtype} maps give a {out.dtype} one",
                why="Whatever comes next runs in another precision than was asked for.",
                do="Create constants with the input's dtype.",
                measured=measured,
            )
        )
    return findings


def _training(subject: Subject) -> list[Finding]:
    """Whether it runs in training, and whether its output still hangs on what came in."""
    maps = as_given(subject.maps())
    try:
        out = call(subject.module(training=True), maps)
    except RAISED as error:
        return [
            Finding(
                severity="fault",
                what=f"it runs in eval and fails in training: {Failure.of(error).reason}",
                why="It can be used, but never trained.",
                do="Call it after module.train() to see the whole traceback.",
                measured={"error": type(error).__name__, "trainable": False},
            )
        ]
    if not out.requires_grad:
        return [
            Finding(
                severity="fault",
                what="its output is cut from autograd: nothing can be trained through it",
                why="Neither its own parameters nor the layers before it get a gradient, and nothing fails.",
                do=CUT_BY,
                measured={"trainable": False},
            )
        ]
    if not bool(torch.isfinite(out).all()):
        return [_not_finite("in training the output of finite inputs is not finite", out)]
    return []


def _not_finite(what: str, out: torch.Tensor) -> Finding:
    share = nonfinite_share([out])
    return Finding(
        severity="fault",
        what=f"{what}: {share:.2%} of its values are infinite or NaN",
        why="One infinity or NaN spreads through a network in one step.",
        do="Look for a division or a logarithm of something that can be 0.",
        measured={"finite": False, "nonfinite_share": share},
    )


def batch_of_1(subject: Subject) -> list[Finding]:
    """Whether one image trains, and whether in eval an image's result depends on its neighbours."""
    return [*_neighbours(subject), *_one_image_trains(subject)]


def _neighbours(subject: Subject) -> list[Finding]:
    with torch.no_grad():
        # A fresh module for each call, so that what it remembers of earlier ones is not put down to the batch.
        together, again = (call(subject.module(), subject.maps())[:1] for _ in range(2))
        alone = call(subject.module(), [x[:1] for x in subject.maps()])
    size = rms(together) or 1.0
    repeated, difference = rms(together - again) / size, rms(together - alone) / size
    measured = {"eval_difference": difference, "repeated_difference": repeated}
    if not repeated <= SAME:
        return [
            Finding(
                severity="unknown",
                what=f"in eval, two calls with the same batch already differ by {repeated:.1%}, so nothing can be told "
                "about an image alone",
                why="What is random in every call hides what depends on the batch.",
                do="Draw random numbers only if self.training, and look again.",
                measured=measured,
            )
        ]
    if not difference <= SAME:
        told = f"another result than among others ({difference:.1%} off)"
        if not math.isfinite(difference):
            told = "a result that is not finite"
        return [
            Finding(
                severity="fault",
                what=f"in eval, an image alone gives {told}",
                why="Predictions then depend on what happens to be in the batch.",
                do="Take no statistics over the batch in eval: use the running ones.",
                measured=measured,
            )
        ]
    what = "in eval, one image alone gives the same as among others"
    return [Finding(severity="ok", what=what, measured=measured)]


def _one_image_trains(subject: Subject) -> list[Finding]:
    try:
        _train(subject, subject.batch)
    except RAISED:
        return []  # not for the size of the batch: the check of the output says it
    try:
        out = _train(subject, 1)
    except RAISED as error:
        return [
            Finding(
                severity="note",
                what=f"does not train with a batch of 1 ({first_line(error)})",
                why="Batch norm after global pooling sees a single value a channel: the last, smaller batch of an "
                "epoch can be the one that stops a run.",
                do="Train with 2 or more a device and drop_last=True, or take a norm that needs no batch (norm=layer).",
                measured={"error": type(error).__name__},
            )
        ]
    if not bool(torch.isfinite(out).all()):
        return [
            Finding(
                severity="fault",
                what="with a batch of 1 in training the output is not finite, and nothing fails",
                why="The variance of a single value is undefined; the NaN goes into the weights.",
                do="Refuse a batch of 1, or take biased variances.",
            )
        ]
    if not out.requires_grad:
        return []  # it trains with no batch at all, which the check of the output says
    return [Finding(severity="ok", what="trains with a batch of 1")]


def _train(subject: Subject, batch: int) -> torch.Tensor:
    out = call(subject.module(training=True), as_given(subject.maps(batch=batch)))
    if out.requires_grad:
        out.sum().backward()  # type: ignore[no-untyped-call]
    return out


def mismatched_shapes(subject: Subject) -> list[Finding]:
    """What happens when y has one position, one channel, one image, or half the size of x."""
    if subject.uneven or subject.inputs < 2:
        what = "it takes maps of unequal shapes, so none is broadcast by mistake"
        if subject.inputs < 2:
            what = "it takes one map, so there is none that could differ in shape"
        return [Finding(severity="ok", what=what, measured={"accepted": {}})]
    x = subject.maps()[0]
    cases = {
        "one position": _corner(x, [1] * len(subject.size)),
        "one channel": x[:, :1],
        "one image": x[:1],
        "half the size": _corner(x, [max(1, extent // 2) for extent in subject.size]),
    }
    accepted = {}
    for name, y in cases.items():
        if y.shape == x.shape:
            continue
        try:
            with torch.no_grad():
                out = call(subject.module(), [x, y, *subject.maps()[2:]])
        except RAISED:  # Refused, in whatever words: that is what should happen.
            continue
        accepted[name] = (tuple(y.shape), tuple(out.shape))
    measured = {"accepted": {name: list(shapes[0]) for name, shapes in accepted.items()}}
    if not accepted:
        return [Finding(severity="ok", what="refuses inputs that differ in shape", measured=measured)]
    told = "; ".join(f"x {tuple(x.shape)} and y {y} give {out}" for y, out in accepted.values())
    return [
        Finding(
            severity="warning",
            what=f"fuses inputs that do not fit, without a word: {told}",
            why="Broadcasting fuses the wrong positions, channels or images; training goes on and is only worse.",
            do="Compare the shapes first: `if x.shape != y.shape: raise ValueError(...)`.",
            measured=measured,
        )
    ]


def _corner(x: torch.Tensor, extents: list[int]) -> torch.Tensor:
    """The first positions of each spatial dimension."""
    for dimension, extent in enumerate(extents, start=2):
        x = x.narrow(dimension, 0, extent)
    return x


def state_in_eval(subject: Subject) -> list[Finding]:
    """Buffers and parameters before and after forward passes in eval, and two outputs of the same input."""
    module, maps = subject.module(), subject.maps()
    kept = [x.clone() for x in maps]
    before = {name: tensor.clone() for name, tensor in _state(module).items()}
    with torch.no_grad():
        first = call(module, maps).clone()
        second = call(module, [x.clone() for x in kept])
        fresh = call(subject.module(), [x.clone() for x in kept])
    after = _state(module)
    changed = [name for name in after if name not in before or not _same(before[name], after[name])]
    names = input_names(len(maps))
    spoilt = [name for name, x, was in zip(names, maps, kept, strict=True) if not _same(x, was)]
    findings = []
    if changed:
        findings.append(
            Finding(
                severity="fault",
                what=f"a forward pass in eval changes {', '.join(changed)}",
                why="Results then depend on what was evaluated before, and a saved model on when it was saved.",
                do="Update statistics only if self.training.",
                measured={"changed": changed},
            )
        )
    if spoilt:
        findings.append(
            Finding(
                severity="fault",
                what=f"it writes into its inputs ({', '.join(spoilt)})",
                why="The skip connection that still needs the map gets another one.",
                do="Replace the in-place operation on the input by one that makes a new tensor.",
            )
        )
    if not changed and not _same(first, second):
        cause, do = "something random, dropout perhaps, is still on", "Draw random numbers only if self.training."
        if rms(fresh - first) <= SAME * rms(first):  # so a module that was not called before gives the first again
            cause = "it remembers being called, in a Python attribute perhaps"
            do = "Let forward change nothing, or only if self.training."
        findings.append(
            Finding(
                severity="warning",
                what=f"the same input gives two different outputs in eval: {cause}",
                why="A result that cannot be repeated can be neither compared, exported nor served.",
                do=do,
            )
        )
    if findings:
        return findings
    what = "eval changes no buffer and no input, and gives the same twice"
    return [Finding(severity="ok", what=what, measured={"changed": []})]


def _state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict(module.named_buffers()) | {name: p.detach() for name, p in module.named_parameters()}


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and bool(torch.equal(a, b) or torch.allclose(a, b, rtol=0, atol=0, equal_nan=True))
