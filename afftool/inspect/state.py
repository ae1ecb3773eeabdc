"""Whether evaluation leaves the module as it was, and gives the same twice."""

from __future__ import annotations

import torch

from afftool.inspect.finding import Finding
from afftool.inspect.subject import Subject, call, rms


def check(subject: Subject) -> list[Finding]:
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
    spoilt = [i for i, (x, was) in enumerate(zip(maps, kept, strict=True)) if not _same(x, was)]
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
                what=f"it writes into its inputs ({', '.join('xy'[i] if i < 2 else str(i + 1) for i in spoilt)})",
                why="The skip connection that still needs the map gets another one.",
                do="Replace the in-place operation on the input by one that makes a new tensor.",
            )
        )
    if not changed and not _same(first, second):
        cause, do = "something random, dropout perhaps, is still on", "Draw random numbers only if self.training."
        if rms(fresh - first) <= 1e-6 * rms(first):  # so a module that was not called before gives the first again
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
