"""What is asked for, as frozen values: a fusion, a host, a case. A spec that exists is valid.

The text form is `name[:key=value]...`, for example `iaff`, `aff:reduction=16`, `aff:scales=global+global`,
`resnet50:stages=3-4:stem=plain` or `mypkg.gates:MyGate:width=8`. Nothing here imports torch, so bad input is
answered at once.
"""

from afftool.spec.case import CaseSpec, Dtype, MemoryFormat, Mode, targets_of
from afftool.spec.fusion import FusionSpec
from afftool.spec.grammar import Grammar, Scale
from afftool.spec.host import MODULE, HostSpec
from afftool.spec.text import parse_size, show_size, split_list

__all__ = [
    "MODULE",
    "CaseSpec",
    "Dtype",
    "FusionSpec",
    "Grammar",
    "HostSpec",
    "MemoryFormat",
    "Mode",
    "Scale",
    "parse_size",
    "show_size",
    "split_list",
    "targets_of",
]
