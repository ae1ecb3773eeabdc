"""A graft saved as a Python file: it is imported and trained anywhere, and fuses where it was said or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from networks_to_graft import UNet

from afftool.errors import SpecError, UnknownKey
from afftool.fusion import fusion_factory
from afftool.graft import graft_network
from afftool.graft.network import Survey, graft
from afftool.graft.opening import surveyed
from afftool.graft.saved import saved_file, words_of
from afftool.spec import FusionSpec, HostSpec
from afftool.spec.graft import Selection

SHAPES = ((2, 3, 16, 16),)
TRAINED = """
import sys
import torch
from grafted import build

torch.manual_seed(0)
torch.set_num_threads(1)
net, image = build(), torch.load("image.pt")
found = net.load_state_dict(torch.load("original.pt"), strict=False)
assert not found.unexpected_keys, found
assert found.missing_keys and all(key.startswith("fusions.") for key in found.missing_keys), found
torch.save(net.eval()(image), "output.pt")
step = torch.optim.SGD(net.train().parameters(), 0.1)
for _ in range(2):
    step.zero_grad()
    net(image).square().mean().backward()
    step.step()
assert all(p.grad is not None for p in net.parameters())
assert net.eval()(image[:1]).isfinite().all()
"""


def saved(text: str, fusion: str) -> str:
    host = HostSpec.grafted(text)
    assert host.graft is not None
    survey = surveyed(host, SHAPES)
    return saved_file(host, FusionSpec.parse(fusion), SHAPES, survey.chosen(host.graft.selection))


def imported(text: str) -> ModuleType:
    module = ModuleType("grafted")
    exec(compile(text, "grafted.py", "exec"), vars(module))
    return module


def test_a_fresh_process_imports_it_loads_the_checkpoint_and_trains_it(tmp_path) -> None:
    (tmp_path / "grafted.py").write_text(saved("networks_to_graft:UNet:stage=1", "iaff"))
    torch.manual_seed(5)
    original, image = UNet(), torch.randn(2, 3, 16, 16)
    torch.save(original.state_dict(), tmp_path / "original.pt")
    torch.save(image, tmp_path / "image.pt")
    known = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1]), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", TRAINED],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": known},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    survey = surveyed(HostSpec.grafted("networks_to_graft:UNet"), SHAPES)
    torch.manual_seed(0)
    direct = graft(UNet(), [image], fusion_factory("iaff"), Selection(stages=(1,)), survey=survey)
    direct.load_state_dict(original.state_dict(), strict=False)
    assert torch.equal(torch.load(tmp_path / "output.pt"), direct.eval()(image))


def test_it_says_which_sites_it_fuses_and_pins_each() -> None:
    module = imported(saved("networks_to_graft:UNet:at=1+3-4", "aff"))
    assert module.NETWORK == "networks_to_graft:UNet:at=1+3-4"
    assert list(module.SITES) == [1, 3, 4]
    assert module.SITES[3].startswith("add in low.0 at networks_to_graft.py:")
    assert module.SHAPES == SHAPES


def test_what_was_said_of_the_graft_is_kept_and_what_chose_the_sites_becomes_their_numbers() -> None:
    text = "networks_to_graft:UNet:path=low.*:share=true:init=neutral:width=4"
    module = imported(saved(text, "aff:reduction=2"))
    assert module.NETWORK == "networks_to_graft:UNet:at=3-4:init=neutral:share=true:width=4"
    assert module.FUSION == "aff:reduction=2"
    assert list(module.build().fusions) == ["3"]


def test_keys_of_the_network_are_given_to_build() -> None:
    module = imported(saved("networks_to_graft:UNet:at=concat", "aff"))
    net = module.build(classes=7)
    assert net.head.out_channels == 7
    with pytest.raises(UnknownKey, match="widht"):
        module.build(widht=8)


def test_a_network_whose_sites_are_others_now_is_refused() -> None:
    text = saved("networks_to_graft:UNet:at=3", "aff")
    moved = imported(text.replace("add in low.0", "add in low.7"))
    with pytest.raises(SpecError, match=r"has changed: its site 3 was add in low.7 .*, and is add in low.0"):
        moved.build()
    fewer = imported(text.replace("at=3", "at=5").replace("    3: ", "    9: "))
    with pytest.raises(SpecError, match=r"its site 9 was add in low.0 .*, and it has 5 sites"):
        fewer.build()


def test_texts_of_a_users_can_neither_end_the_docstring_nor_the_string_they_stand_in() -> None:
    host = HostSpec.grafted("networks_to_graft:UNet").with_settings(head='"""\nimport os\n\\')
    site = Survey((torch.zeros(SHAPES[0]),)).look(UNet(), "eval").sites[0]
    module = imported(saved_file(host, FusionSpec.parse("aff"), SHAPES, [site]))
    assert dict(HostSpec.grafted(module.NETWORK).options) == {**dict(host.options), "at": "1"}
    assert dict(module.SITES) == {1: words_of(site)}
    assert "os" not in vars(module)


def test_a_network_is_grafted_in_python_by_its_text_and_a_fusions() -> None:
    net = graft_network("networks_to_graft:UNet:at=add", "aff", shapes=SHAPES)
    assert list(net.fusions) == ["1", "2", "3", "4"]  # type: ignore[arg-type]
    plain = graft_network("graft:networks_to_graft:UNet", "original", shapes=SHAPES)
    assert not hasattr(plain, "fusions")
