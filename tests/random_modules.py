"""Random modules as users write them, in source, and what they cost, counted from their layers by hand.

A module is a straight line of steps over maps of one size. Every step knows, from its own numbers alone, its
parameters and the multiply-adds of its convolutions and products; torch is not asked.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

BATCH, CHANNELS, SIZE = 2, 8, (6, 10)
HEIGHT, WIDTH = SIZE
PLACES = HEIGHT * WIDTH


@dataclass
class Map:
    """A map of the program: its name, its channels, and the step that makes it (None for an input)."""

    name: str
    channels: int
    made_by: Step | None = None


@dataclass
class Step:
    """Lines of `forward`, what they read, and what they cost. `parameters` are names and lengths."""

    reads: list[Map]
    lines: list[str] = field(default_factory=list)
    layers: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    macs: int = 0
    products: int = 0
    """Of these, between two maps."""


@dataclass
class Program:
    """A module in source, with the counts that must come out."""

    seed: int
    source: str
    inputs: int
    fault: str | None
    parameters: dict[str, int]
    dead: set[str]
    macs: int
    backward_macs: int

    @property
    def params(self) -> int:
        return sum(self.parameters.values())


FAULTS = {"channels": r"expected input\[", "groups": "divisible"}
"""Mistakes that are planted in some, and what torch must be quoted with."""


ACTIVATIONS = [None, None, "F.relu({})", "F.gelu({})", "torch.sigmoid({})", "torch.tanh({})", "{}.clamp(-3, 3)"]
ACTIVATIONS += ["nn.ReLU(inplace=True)({})", "{}.relu_()", "F.silu({}, inplace=True)", "F.hardswish({}, inplace=True)"]
ACTIVATIONS += ["F.leaky_relu({}, 0.1, inplace=True)", "F.elu({}, inplace=True)", "{}.mul_(0.5)"]
POOLS = ["F.avg_pool2d({}, 3, 1, 1)", "F.max_pool2d({}, 5, 1, 2)", "{0} - {0}.mean((2, 3), keepdim=True)"]
POOLS += ["F.interpolate(F.adaptive_avg_pool2d({0}, 2), size={0}.shape[2:])"]


class Writer:
    """Writes one program."""

    def __init__(self, seed: int, inputs: int, *, inplace_on_inputs: bool = False) -> None:
        self.draw = random.Random(seed)
        self.seed = seed
        self.inplace_on_inputs = inplace_on_inputs
        self.inputs = [Map(name, CHANNELS) for name in ("x", "y", "z")[:inputs]]
        self.maps = list(self.inputs)
        self.steps: list[Step] = []
        self.convolutions: list[tuple[str, int, int, int, dict[str, int]]] = []
        self.number = 0

    def program(self, fault: str | None = None) -> Program:
        for _ in range(self.draw.randint(2, 7)):
            self.draw.choice(self.KINDS)(self)
        if fault:
            self._plant(fault)
        out = self._joined()
        alive = self._reached(out)
        parameters = {name: length for step in self.steps for name, length in step.parameters.items()}
        live = {name for step in alive for name in step.parameters}
        layers = {name: made for step in self.steps for name, made in step.layers.items()}
        lines = [line for step in self.steps for line in step.lines]
        names = ", ".join(x.name for x in self.inputs)
        source = [
            "import torch",
            "from torch import nn",
            "from torch.nn import functional as F",
            "",
            "",
            "class Fusion(nn.Module):",
            "    def __init__(self, channels):",
            "        super().__init__()",
            *(f"        self.{name} = {made}" for name, made in layers.items()),
            "",
            f"    def forward(self, {names}):",
            *(f"        {line}" for line in lines),
            f"        return {out.name}",
            "",
        ]
        return Program(
            seed=self.seed,
            source="\n".join(source),
            inputs=len(self.inputs),
            fault=fault,
            parameters=parameters,
            dead=set(parameters) - live - self._shared(alive),
            macs=sum(step.macs for step in self.steps),
            # A gradient for what comes in, and one for the weight or the other map: each costs as much as forward.
            backward_macs=2 * sum(step.macs for step in alive),
        )

    # What there is to choose from.

    def _any(self) -> Map:
        return self.draw.choice(self.maps[-4:])

    def _name(self, prefix: str) -> str:
        self.number += 1
        return f"{prefix}{self.number}"

    def _width(self) -> int:
        return self.draw.choice([4, 8, 8, 12, 16])

    def _made(self, step: Step, channels: int, expression: str) -> Map:
        """The map that a step's last line makes, with an activation behind it or not."""
        name = self._name("v")
        step.lines.append(f"{name} = {expression}")
        self.steps.append(step)
        made = Map(name, channels, step)
        self.maps.append(made)
        return made

    def _finished(self, made: Map) -> Map:
        """With a norm, an activation, both or none, in place or not: nothing else has read the map yet."""
        step = made.made_by
        assert step is not None
        c, name = made.channels, made.name
        norm = self.draw.choice([None, None, "batch", "group", "instance", "layer"])
        if norm:
            layer = self._name("norm")
            step.layers[layer] = {
                "batch": f"nn.BatchNorm2d({c})",
                "group": f"nn.GroupNorm({2 - c % 2}, {c})",
                "instance": f"nn.InstanceNorm2d({c}, affine=True)",
                "layer": f"nn.LayerNorm({c})",
            }[norm]
            step.parameters |= {f"{layer}.weight": c, f"{layer}.bias": c}
            called = f"self.{layer}({name})"
            if norm == "layer":
                called = f"self.{layer}({name}.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)"
            step.lines.append(f"{name} = {called}")
        act = self.draw.choice(ACTIVATIONS)
        if act:
            step.lines.append(f"{name} = {act.format(name)}")
        return made

    # The steps.

    def _conv(self, source: Map, out: int, extents: tuple[int, int], **more: int) -> tuple[Step, str]:
        """A convolution layer that gives maps of `extents`, and its call."""
        draw = self.draw
        k, groups, stride, dilation = (more.get(key, 1) for key in ("k", "groups", "stride", "dilation"))
        bias = draw.random() < 0.5
        layer = self._name("conv")
        padding = dilation * (k // 2)
        made = f"nn.Conv2d({source.channels}, {out}, {k}, stride={stride}, padding={padding}, "
        made += f"dilation={dilation}, groups={groups}, bias={bias})"
        weights = out * (source.channels // groups) * k * k
        parameters = {f"{layer}.weight": weights} | ({f"{layer}.bias": out} if bias else {})
        macs = BATCH * extents[0] * extents[1] * weights
        return Step([source], [], {layer: made}, parameters, macs), f"self.{layer}({source.name})"

    def plain(self) -> None:
        source, k, out = self._any(), self.draw.choice([1, 1, 3, 5]), self._width()
        step, call = self._conv(source, out, SIZE, k=k)
        made = self._made(step, out, call)
        (layer,) = step.layers
        self.convolutions.append((layer, source.channels, out, step.macs, dict(step.parameters)))
        self._finished(made)

    def grouped(self) -> None:
        source = self._any()
        groups = self.draw.choice([g for g in (1, 2, 4) if source.channels % g == 0][-2:])
        step, call = self._conv(source, out := groups * self.draw.randint(1, 4), SIZE, k=3, groups=groups)
        self._finished(self._made(step, out, call))

    def depthwise(self) -> None:
        source = self._any()
        times = self.draw.choice([1, 1, 2])
        step, call = self._conv(
            source, source.channels * times, SIZE, k=self.draw.choice([3, 5, 7]), groups=source.channels
        )
        self._finished(self._made(step, source.channels * times, call))

    def dilated(self) -> None:
        source, out = self._any(), self._width()
        step, call = self._conv(source, out, SIZE, k=3, dilation=self.draw.choice([2, 3]))
        self._finished(self._made(step, out, call))

    def strided(self) -> None:
        source, out = self._any(), self._width()
        step, call = self._conv(source, out, (math.ceil(HEIGHT / 2), math.ceil(WIDTH / 2)), k=3, stride=2)
        mode = self.draw.choice(["nearest", "bilinear"])
        self._finished(self._made(step, out, f'F.interpolate({call}, size={source.name}.shape[2:], mode="{mode}")'))

    def transposed(self) -> None:
        source, out = self._any(), 2 * self.draw.randint(2, 6)
        groups = self.draw.choice([1, 1, 2 - source.channels % 2])
        layer = self._name("up")
        weights = source.channels * (out // groups) * 4
        macs = BATCH * (HEIGHT // 2) * (WIDTH // 2) * weights
        step = Step([source], [], {}, {f"{layer}.weight": weights, f"{layer}.bias": out}, macs)
        step.layers[layer] = f"nn.ConvTranspose2d({source.channels}, {out}, 2, stride=2, groups={groups})"
        self._finished(self._made(step, out, f"self.{layer}(F.avg_pool2d({source.name}, 2))"))

    def again(self) -> None:
        """A convolution that is there already, called once more."""
        for layer, width, out, macs, _ in self.convolutions:
            fitting = [source for source in self.maps if source.channels == width]
            if fitting:
                source = self.draw.choice(fitting)
                step = Step([source], [], {}, {}, macs)
                self._made(step, out, f"self.{layer}({source.name})")
                step.shared = layer  # type: ignore[attr-defined]
                return
        self.plain()

    def linear(self) -> None:
        source, out = self._any(), self._width()
        layer = self._name("fc")
        weights = source.channels * out
        step = Step([source], [], {layer: f"nn.Linear({source.channels}, {out})"}, macs=BATCH * PLACES * weights)
        step.parameters = {f"{layer}.weight": weights, f"{layer}.bias": out}
        called = f"self.{layer}({source.name}.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)"
        self._finished(self._made(step, out, called))

    def attention(self) -> None:
        """Positions look at positions, of this map or of another; three ways to write the products."""
        source = self._any()
        other = self.draw.choice([m for m in self.maps if m.channels == source.channels])
        c, a, b, w = source.channels, self._name("a"), self._name("b"), self._name("w")
        step = Step([source, other], macs=2 * BATCH * PLACES * PLACES * c, products=2)
        step.lines = [f"{a} = {source.name}.flatten(2)", f"{b} = {other.name}.flatten(2)"]
        first, second = self.draw.choice(
            [
                (f"torch.bmm({a}.transpose(1, 2), {b})", f"torch.bmm({b}, {w}.transpose(1, 2))"),
                (f"{a}.transpose(1, 2) @ {b}", f"{b} @ {w}.transpose(1, 2)"),
                (f'torch.einsum("ncl,ncm->nlm", {a}, {b})', f'torch.einsum("nlm,ncm->ncl", {w}, {b})'),
                (f"torch.matmul({a}.mT, {b})", f"torch.matmul({b}, {w}.mT)"),
            ]
        )
        step.lines += [f"{w} = torch.softmax({first} * {c**-0.5:.4f}, -1)"]
        self._finished(self._made(step, c, f"({second}).reshape({source.name}.shape)"))

    def squeezed(self) -> None:
        """Weights of the channels, from their means, by two linear layers."""
        source = self._any()
        c, hidden = source.channels, self.draw.choice([1, 2, 4])
        down, up = self._name("down"), self._name("up")
        step = Step([source], layers={down: f"nn.Linear({c}, {hidden})", up: f"nn.Linear({hidden}, {c})"})
        step.parameters = {f"{down}.weight": c * hidden, f"{down}.bias": hidden}
        step.parameters |= {f"{up}.weight": c * hidden, f"{up}.bias": c}
        step.macs = 2 * BATCH * c * hidden
        s = self._name("s")
        pooled = self.draw.choice(["{}.mean((2, 3))", "F.adaptive_avg_pool2d({}, 1).flatten(1)", "{}.amax((2, 3))"])
        step.lines = [f"{s} = self.{up}(F.leaky_relu(self.{down}({pooled.format(source.name)}), 0.1))"]
        self._made(step, c, f"{source.name} * torch.sigmoid({s})[:, :, None, None]")

    def along_channels(self) -> None:
        """A convolution over the channels' means."""
        source, k, layer, s = self._any(), self.draw.choice([3, 5]), self._name("eca"), self._name("s")
        step = Step([source], layers={layer: f"nn.Conv1d(1, 1, {k}, padding={k // 2}, bias=False)"})
        step.parameters, step.macs = {f"{layer}.weight": k}, BATCH * source.channels * k
        step.lines = [f"{s} = torch.sigmoid(self.{layer}({source.name}.mean((2, 3)).unsqueeze(1)))"]
        self._made(step, source.channels, f"{source.name} * {s}.transpose(1, 2).unsqueeze(-1)")

    def pooled(self) -> None:
        source = self._any()
        called = self.draw.choice(POOLS)
        self._made(Step([source]), source.channels, called.format(source.name))

    def halves(self) -> None:
        source = self._any()
        if source.channels % 2:
            return self.pooled()
        a, b = self._name("a"), self._name("b")
        step = Step([source], [f"{a}, {b} = {source.name}.chunk(2, 1)"])
        self._made(step, source.channels // 2, f"{a} * torch.sigmoid({b})")
        return None

    def joined(self) -> None:
        source = self._any()
        fitting = [m for m in self.maps if m.channels == source.channels]
        other = self.draw.choice(fitting)
        a, b = source.name, other.name
        way = self.draw.choice(["{} + {}", "{} * {}", "torch.maximum({}, {})", "{} - 0.5 * {}", "torch.add({}, {})"])
        self._finished(self._made(Step([source, other]), source.channels, way.format(a, b)))

    def stacked(self) -> None:
        parts = self.draw.sample(self.maps, min(len(self.maps), self.draw.choice([2, 3])))
        width = sum(part.channels for part in parts)
        if width > 48:
            return self.joined()
        named = ", ".join(part.name for part in parts)
        self._finished(self._made(Step(parts), width, f"torch.cat([{named}], 1)"))
        return None

    def scaled(self) -> None:
        source, name = self._any(), self._name("gamma")
        step = Step([source], layers={name: f"nn.Parameter(torch.full(({source.channels}, 1, 1), 0.5))"})
        step.parameters = {name: source.channels}
        self._made(step, source.channels, f"self.{name} * {source.name}")

    def written(self) -> None:
        """An activation in place on an input, as pre-activation blocks have it."""
        source = self.draw.choice(self.inputs)
        # What autograd has kept of it for another step must not be written over.
        if not self.inplace_on_inputs or any(source in step.reads for step in self.steps):
            return self.scaled()
        step, call = self._conv(source, source.channels, SIZE)
        self._made(step, source.channels, call.replace(source.name, f"F.relu({source.name}, inplace=True)"))
        return None

    KINDS = (plain, plain, grouped, depthwise, dilated, strided, transposed, again, linear, attention, squeezed)
    KINDS += (along_channels, pooled, halves, joined, joined, stacked, stacked, scaled, written)

    # The end of it.

    def _joined(self) -> Map:
        """One map of the inputs' shape that every input is in."""
        out = self.maps[-1]
        if out.channels != CHANNELS:
            step, call = self._conv(out, CHANNELS, SIZE)
            out = self._made(step, CHANNELS, call)
        whole = Step([out, *self.inputs])
        return self._made(whole, CHANNELS, " + ".join(m.name for m in whole.reads))

    def _plant(self, fault: str) -> None:
        source = self.maps[-1]
        layer = self._name("wrong")
        wrong = {
            "channels": f"nn.Conv2d({source.channels + 1}, 8, 1)",
            "groups": f"nn.Conv2d({source.channels}, 9, 1, groups=2)",
        }[fault]
        self._made(Step([source], layers={layer: wrong}), 8, f"self.{layer}({source.name})")

    def _reached(self, out: Map) -> list[Step]:
        alive: list[Step] = []
        waiting = [out]
        while waiting:
            step = waiting.pop().made_by
            if step is not None and not any(step is known for known in alive):
                alive.append(step)
                waiting += step.reads
        return alive

    def _shared(self, alive: list[Step]) -> set[str]:
        """Parameters of layers whose first call is dead and whose second is not."""
        layers = {getattr(step, "shared", None) for step in alive}
        return {name for layer, *_, parameters in self.convolutions if layer in layers for name in parameters}


def written(seed: int, *, inputs: tuple[int, ...] = (2,), inplace_on_inputs: bool = False) -> Program:
    """The program of this seed; one in eight has a fault."""
    draw = random.Random(1_000_003 * seed + 17)
    writer = Writer(seed, draw.choice(inputs), inplace_on_inputs=inplace_on_inputs)
    return writer.program(draw.choice(list(FAULTS)) if draw.random() < 1 / 8 else None)
