"""PyTorch as it is: every operator launched on its own."""

from __future__ import annotations

from afftool.backends import Prepared
from afftool.backends.getting_ready import first_steps
from afftool.backends.workload import Workload
from afftool.build import Case


def prepare(case: Case) -> Prepared:
    """Copy the case and run it once. Raises whatever the module raises."""
    work = Workload(case)
    return Prepared(
        backend="eager",
        repeat=work.repeat,
        mode=work.mode,
        restore=work.restoring,
        workload=work,
        parts=work.parts,
        outputs=work.outputs,
        move=work.move,
        preparation=first_steps(work.run, case.spec.device),
    )
