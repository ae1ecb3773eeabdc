"""Every name afftool knows, on one page. Plain data: importing this file imports nothing heavy.

A path is `module:attribute` and is imported only when its name is used (see `afftool.registry`). To add a fusion,
a host, a backend, a measure, a format or a command, write its file and add one line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Knob:
    """One `key=value` of a host: `kind` is int, stages or a |-separated list of choices.

    `highest` is the last of the host's stages, for a knob of kind stages.
    """

    kind: str
    default: str
    summary: str
    highest: int | None = None


@dataclass(frozen=True)
class Loadable:
    """A name with the dotted path it loads and the line that `afftool list` prints."""

    path: str
    summary: str


@dataclass(frozen=True)
class Backend:
    """A way to execute a case; one that `needs_cuda` is measured elsewhere only where it is asked for by name."""

    path: str
    summary: str
    needs_cuda: bool = False


@dataclass(frozen=True)
class Measure:
    """What a bench can read off a case. One with a `path` is read off a case that a backend has prepared.

    The others have places of their own in a bench: `cost` before any backend, `memory` while the case is prepared,
    `latency` in turns with others.
    """

    summary: str
    path: str | None = None


@dataclass(frozen=True)
class Preset:
    """A named point of the fusion grammar (`afftool.spec.Grammar`); `settings` hold what differs from its defaults."""

    formula: str
    source: str
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Host:
    """A network that carries fusions; `size` and `channels` are the input used where none is asked for.

    `channels` are those of the bare fusion alone: a network has channels of its own. `scenario` is the paper's: what
    the fusions in it join (same-layer, short-skip or long-skip; None for no host). `widths` are the channels it fuses
    at, a stage each, before the knob `width` multiplies them; empty if not fixed.
    """

    path: str
    summary: str
    source: str
    size: int
    knobs: Mapping[str, Knob] = field(default_factory=dict)
    scenario: str | None = None
    widths: tuple[int, ...] = ()
    channels: int | None = None


@dataclass(frozen=True)
class Dataset:
    """A source of images for `--data NAME[:PATH][:key=value]...`; `path` says what PATH has to be, "" for none.

    Knob kinds are int, size (56 or 56x28), text and |-separated choices; a default of "" means "find out".
    """

    loader: str
    summary: str
    path: str = ""
    knobs: Mapping[str, Knob] = field(default_factory=dict)


_NO_ATTENTION: dict[str, object] = {"context": "none", "scales": ()}
_GLOBAL: dict[str, object] = {"scales": ("global",)}
_PAPER = "Dai et al., WACV 2021 (arXiv 2009.14082)"

FUSIONS: dict[str, Preset] = {
    "add": Preset("X + Y", f"{_PAPER}, Table 1; ResNet, FPN", {"strategy": "add", **_NO_ATTENTION}),
    "concat": Preset("W [X, Y] + b", f"{_PAPER}, Table 1; U-Net", {"strategy": "concat", **_NO_ATTENTION}),
    "se": Preset("X + G(Y) Y", f"{_PAPER}, Table 1; SENet", {"strategy": "refinement", "context": "y", **_GLOBAL}),
    "gau": Preset("G(Y) X + Y", f"{_PAPER}, Table 1; GAU", {"strategy": "modulation", "context": "y", **_GLOBAL}),
    "highway": Preset("G(X) X + (1 - G(X)) Y", f"{_PAPER}, Table 1; Highway Networks", {"context": "x", **_GLOBAL}),
    "sa": Preset(
        "G([X, Y]) X + Y",
        f"{_PAPER}, Table 1; SA",
        {"strategy": "modulation", "integration": "concat", **_GLOBAL},
    ),
    "sk": Preset("G(X + Y) X + (1 - G(X + Y)) Y", f"{_PAPER}, Table 1; SKNet, ResNeSt", _GLOBAL),
    "ms-se": Preset("X + M(Y) Y", f"{_PAPER}, Table 4", {"strategy": "refinement", "context": "y"}),
    "ms-gau": Preset("M(Y) X + Y", f"{_PAPER}, Table 4", {"strategy": "modulation", "context": "y"}),
    "ms-sa": Preset("M(X + Y) X + Y", f"{_PAPER}, Table 4", {"strategy": "modulation"}),
    "aff": Preset("M(X + Y) X + (1 - M(X + Y)) Y", f"{_PAPER}, Section 4.1", {}),
    "iaff": Preset("AFF whose initial integration X u Y is another AFF", f"{_PAPER}, Section 4.2", {"iterations": 2}),
    "global-global": Preset("AFF with g + g for M's logits", f"{_PAPER}, Table 3", {"scales": ("global", "global")}),
    "local-local": Preset("AFF with L + L for M's logits", f"{_PAPER}, Table 3", {"scales": ("local", "local")}),
    "half-aff": Preset("AFF with (L + g) / 2, half the width each", f"{_PAPER}, Table 6", {"join": "half"}),
    "concat-aff": Preset("AFF with W [L, g] + b", f"{_PAPER}, Table 6", {"join": "concat"}),
    "recursive-aff": Preset("AFF with M'(L + g) L + (1 - M'(L + g)) g", f"{_PAPER}, Table 6", {"join": "recursive"}),
    "open-aff": Preset("2 M(X + Y) X + 2 (1 - M(X + Y)) Y", "released open-aff code, AFF", {"gain": 2.0}),
    "open-iaff": Preset(
        "iAFF whose second pass reuses the first pass's global branch; its own is dead",
        "released open-aff PyTorch port, iAFF",
        {"iterations": 2, "share_global": True},
    ),
    "eres2net-aff": Preset(
        "(1 + T) X + (1 - T) Y with T = tanh(L([X, Y]))",
        "3D-Speaker, ERes2Net AFF",
        {"integration": "concat", "scales": ("local",), "activation": "silu", "gate": "tanh"},
    ),
}

ORIGINAL = "original"
"""No fusion: what a network of the user's own joins by itself, the baseline of what is grafted into it."""

_CLASSES = Knob("int", "1000", "classes of the final layer")
_IMAGENET_KNOBS = {
    "stages": Knob("stages", "3-4", "the stages whose blocks fuse, as 3-4 or 2+4; other blocks add", 4),
    "stem": Knob("deep|plain", "deep", "deep: three 3x3 convolutions (released code); plain: one 7x7"),
    "classes": _CLASSES,
}
_STAGES_3 = Knob("stages", "1-3", "the stages whose blocks fuse; other blocks add", 3)
_CLASSES_100 = Knob("int", "100", "classes of the final layer")
_CIFAR_KNOBS = {
    "b": Knob("int", "3", "residual blocks in each of the three stages"),
    "width": Knob("int", "1", "multiplier of the stage widths 16, 32, 64"),
    "stages": _STAGES_3,
    "classes": _CLASSES_100,
}

HOSTS: dict[str, Host] = {
    "module": Host("afftool.hosts:bare_module", "the bare fusion, nothing around it", "", 56, channels=64),
    "resnet": Host(
        "afftool.hosts.resnet:build",
        "CIFAR ResNet-20-b: pre-activation basic blocks, fusion of shortcut and branch",
        "released open-aff code; paper Table 2",
        32,
        _CIFAR_KNOBS,
        "short-skip",
        (16, 32, 64),
    ),
    "inception": Host(
        "afftool.hosts.inception:build",
        "CIFAR Inception-ResNet-20-b: in each block a 3x3 and a 5x5 branch are fused, then added to the shortcut",
        "paper Table 2",
        32,
        _CIFAR_KNOBS,
        "same-layer",
        (16, 32, 64),
    ),
    "resnext": Host(
        "afftool.hosts.resnext:build",
        "CIFAR ResNeXt-32x4d: post-activation grouped bottlenecks; 38 layers with b=4, 47 with b=5",
        "released open-aff code; paper Table 2",
        32,
        {
            "b": Knob("int", "4", "bottlenecks in each of the three stages"),
            "cardinality": Knob("int", "32", "groups of the 3x3 convolutions"),
            "base": Knob("int", "4", "channels of a group in the first stage, doubled in each that follows"),
            "stages": _STAGES_3,
            "classes": _CLASSES_100,
        },
        "short-skip",
        (256, 512, 1024),
    ),
    "fpn": Host(
        "afftool.hosts.fpn:build",
        "ResNet-20-b + FPN for segmentation: high-level maps, upsampled, fused with low-level ones",
        "paper Table 2",
        96,
        {
            "b": Knob("int", "3", "residual blocks in each of the backbone's three stages"),
            "width": Knob("int", "1", "multiplier of the stage widths 16, 32, 64"),
            "pyramid": Knob("int", "32", "channels of the pyramid, where it fuses"),
            "stride": Knob("1|2|4", "2", "how much smaller than the image the first stage's maps are"),
            "stages": Knob("stages", "1-2", "the stages whose maps are fused with those above; others add", 2),
            "classes": Knob("int", "11", "classes of a pixel"),
        },
        "long-skip",
    ),
    "resnet50": Host(
        "afftool.hosts.resnet50:build",
        "ImageNet ResNet-50: bottlenecks, average-pool shortcuts",
        "released open-aff code; paper Table 5",
        224,
        _IMAGENET_KNOBS,
        "short-skip",
        (256, 512, 1024, 2048),
    ),
    "resnext50": Host(
        "afftool.hosts.resnet50:build_resnext",
        "ImageNet ResNeXt-50-32x4d: grouped bottlenecks, average-pool shortcuts",
        "released open-aff code; paper Table 5",
        224,
        _IMAGENET_KNOBS,
        "short-skip",
        (256, 512, 1024, 2048),
    ),
}

BACKENDS: dict[str, Backend] = {
    "eager": Backend("afftool.backends.eager:prepare", "PyTorch as it is, no compiler"),
    "compile": Backend("afftool.backends.compile:prepare_default", "torch.compile, inductor's defaults"),
    "compile-reduce-overhead": Backend(
        "afftool.backends.compile:prepare_reduce_overhead",
        "torch.compile with CUDA graphs, inputs copied in",
        needs_cuda=True,
    ),
    "compile-max-autotune": Backend(
        "afftool.backends.compile:prepare_max_autotune",
        "torch.compile, kernels autotuned; on CUDA with CUDA graphs, inputs copied in",
    ),
    "cudagraph": Backend(
        "afftool.backends.cudagraph:prepare",
        "eager kernels captured by hand in a CUDA graph, inputs in place",
        needs_cuda=True,
    ),
}

MEASURES: dict[str, Measure] = {
    "cost": Measure("parameters, MACs, FLOPs, bytes moved; needs no real memory"),
    "latency": Measure("time per step, with its spread"),
    "memory": Measure("peak bytes by cause, parameters, saved for backward"),
    "energy": Measure("joules a step, on a GPU whose energy NVML counts", "afftool.measure.energy:measure"),
}

_RESIZE = Knob("size", "", "resize every image to this height and width, as 32 or 180x240")
_COLUMNS = {
    "image": Knob("text", "", "the column that holds the images, where there are several"),
    "label": Knob("text", "", "the column that holds the class numbers, where there are several"),
    "size": _RESIZE,
}

DATASETS: dict[str, Dataset] = {
    "shapes": Dataset(
        "afftool.data.shapes:load",
        "ten glyphs in textured clutter, 3 pixels to the whole image; labels, masks and size bands; made on the fly",
        knobs={
            "size": Knob("int", "32", "height and width of the images in pixels"),
            "train": Knob("int", "4000", "training images (--train-images overrides it)"),
            "test": Knob("int", "2000", "test images"),
        },
    ),
    "digits": Dataset(
        "afftool.data.digits:load",
        "1,797 handwritten digits, 8x8, from scikit-learn",
        knobs={"size": Knob("size", "", "a multiple of 8: every pixel becomes a block of equal ones")},
    ),
    "cifar10": Dataset(
        "afftool.data.cifar:load_cifar10",
        "CIFAR-10 as distributed: python pickles (opened safely) or binary, archived or extracted",
        "the .tar.gz, the extracted folder, or a folder that holds either",
    ),
    "cifar100": Dataset(
        "afftool.data.cifar:load_cifar100",
        "CIFAR-100 as distributed; the paper's is labels=coarse, the 20 superclasses",
        "the .tar.gz, the extracted folder, or a folder that holds either",
        {"labels": Knob("fine|coarse", "fine", "fine: 100 classes; coarse: the 20 superclasses")},
    ),
    "folder": Dataset(
        "afftool.data.folder:load",
        "image folders: train/CLASS/* and test/CLASS/* (or val/); JPEG, PNG, WebP, BMP, GIF, PPM, TIFF",
        "the folder that holds train/",
        {"size": _RESIZE},
    ),
    "parquet": Dataset(
        "afftool.data.parquet:load",
        "Parquet in the Hugging Face hub's layouts: train*.parquet and test*.parquet, or CONFIG/train/*.parquet",
        "the folder that holds the files",
        _COLUMNS,
    ),
    "hub": Dataset(
        "afftool.data.hub:load",
        "a dataset of the Hugging Face hub, by name or local folder, through `datasets`",
        "the dataset's name, as org/name",
        {"config": Knob("text", "", "the dataset's configuration, where it has several"), **_COLUMNS},
    ),
    "masks": Dataset(
        "afftool.data.masks:load",
        "segmentation folders: SPLIT/images/* and SPLIT/masks/*.png of the same stem (CamVid)",
        "the folder that holds train/",
        {
            "classes": Knob("int", "", "number of classes, up to 255; labels beyond it must be the void label"),
            "void": Knob(
                "int", "", "the label of pixels without a class, which are ignored (CamVid: 11; else 255 if it occurs)"
            ),
            "size": _RESIZE,
        },
    ),
}

STUDIES: dict[str, Loadable] = {
    "scale": Loadable(
        "afftool.study.grids:SCALE", "which context scales to attend to: global, local or both (Table 3)"
    ),
    "integration": Loadable(
        "afftool.study.grids:INTEGRATION", "seven ways to integrate at an equal parameter budget (Table 4)"
    ),
    "joining": Loadable("afftool.study.grids:JOINING", "how local and global context are joined (Table 6)"),
    "depth": Loadable("afftool.study.grids:DEPTH", "add, AFF and iAFF in networks of b = 1 to 4 (Figure 7)"),
    "reduction": Loadable("afftool.study.grids:REDUCTION", "AFF with r = 2, 4, 8 and 16"),
    "iterations": Loadable("afftool.study.grids:ITERATIONS", "one, two or three passes of attention"),
    "gain": Loadable("afftool.study.grids:GAIN", "AFF as in the paper or doubled as in the released code"),
    "placement": Loadable("afftool.study.grids:placement", "which stages fuse by AFF and which by addition"),
}

FORMATS: dict[str, Loadable] = {
    "md": Loadable("afftool.formats.markdown:render", "Markdown"),
    "csv": Loadable("afftool.formats.csv:render", "comma-separated values, exact numbers"),
    "json": Loadable("afftool.formats.json:render", "one JSON document, exact numbers, null where there is none"),
    "html": Loadable("afftool.formats.html:render", "one self-contained HTML page"),
}

COMMANDS: dict[str, Loadable] = {
    "bench": Loadable(
        "afftool.cli.bench:bench", "Measure what fusions cost: parameters, MACs, bytes, latency, memory."
    ),
    "profile": Loadable(
        "afftool.cli.profile:profile", "Look into a fusion: a trace, TensorBoard, operator tables; or two."
    ),
    "inspect": Loadable(
        "afftool.cli.inspect:inspect", "Review a fusion, ours or your own: what is dead, doubled, fragile."
    ),
    "ablate": Loadable(
        "afftool.cli.ablate:ablate", "Train variants alike over several seeds, and judge what can be told."
    ),
    "graft": Loadable(
        "afftool.cli.graft:graft", "Find where a network of yours joins maps, and put fusions there: costs, a module."
    ),
    "list": Loadable("afftool.cli.list:list_names", "List the names afftool knows: fusions, hosts, backends, ..."),
    "describe": Loadable("afftool.cli.describe:describe", "Explain a fusion or a host: formula, knobs, cost, source."),
    "doctor": Loadable("afftool.cli.doctor:doctor", "Tell what this machine can measure and what is missing."),
    "runs": Loadable("afftool.cli.runs:runs", "List the stored runs."),
    "report": Loadable("afftool.cli.report:report", "Write a stored run in any of the formats."),
    "compare": Loadable(
        "afftool.cli.compare:compare", "Put two or more stored runs side by side, or studies together."
    ),
    "check": Loadable("afftool.cli.check:check", "Fail where a fusion got more expensive: the gate for CI."),
}
