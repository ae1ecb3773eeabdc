"""`afftool ablate` as people run it."""

import csv
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from afftool.cli import main

Ran = tuple[int, str, str]
Run = Callable[..., Ran]
SMALL = ("--data", "digits", "--train-images", "96", "--batch", "32", "--epochs", "1", "--workers", "0")


@pytest.fixture
def afftool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AFFTOOL_STORE", raising=False)
    for name in [name for name in sys.modules if name.startswith("ablate_own")]:
        monkeypatch.delitem(sys.modules, name)

    def run(*words: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["afftool", *words])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return run


def trained(out: str) -> int:
    return sum(line.startswith("[") for line in out.splitlines())


def test_a_study_is_written_down_and_never_trained_twice(afftool: Run, tmp_path: Path) -> None:
    code, out, err = afftool("ablate", "scale", *SMALL, "--seeds", "2")
    assert (code, trained(out)) == (0, 6)
    assert "2 seeds, 2 comparisons: no difference can be claimed" in err  # before training
    assert "With 2 seeds no difference can be claimed" in out
    rows = list(csv.DictReader(line for line in (tmp_path / "ablations/scale.csv").open() if not line.startswith("#")))
    assert [row["variant"] for row in rows] == ["global-global", "local-local", "aff"]
    for row in rows:
        assert float(row["low"]) <= float(row["score"]) <= float(row["high"])
        assert row["interval"] == "range"
        assert float(row["score"]) == pytest.approx((float(row["seed_0"]) + float(row["seed_1"])) / 2)
        assert row["params"] == rows[0]["params"]
    text = (tmp_path / "ablations/scale.md").read_text()
    assert "Rank agreement: too few variants to rank" in text
    assert "Different data, length of training and classes" in text

    code, out, _ = afftool("ablate", "scale", *SMALL, "--seeds", "2")
    assert (code, trained(out)) == (0, 0)
    code, out, _ = afftool("ablate", "scale", *SMALL, "--seeds", "3")
    assert (code, trained(out)) == (0, 3)
    assert "2 seeds planned, 1 added" in (tmp_path / "ablations/scale.md").read_text()
    code, out, _ = afftool("ablate", "scale", *SMALL, "--seeds", "3", "--variants", "aff,add")
    assert (code, trained(out)) == (0, 3)
    code, out, _ = afftool("ablate", "scale", *SMALL, "--seeds", "1", "--fresh")
    assert (code, trained(out)) == (0, 3)


def test_help_says_how_a_host_of_ones_own_is_named(afftool: Run) -> None:
    code, out, _ = afftool("ablate", "--help")
    assert code == 0
    assert "pkg.mod:build" in out


def test_a_printed_study_is_run_from_its_file_and_is_the_same(afftool: Run, tmp_path: Path) -> None:
    shown = ("--data", "digits", "--train-images", "96", "--batch", "32", "--epochs", "1", "--seeds", "1")
    code, text, _ = afftool("ablate", "gain", *shown, "--print")
    assert code == 0
    (tmp_path / "mine.toml").write_text(text)
    _, out, _ = afftool("ablate", "gain", *shown, "--workers", "0")
    assert trained(out) == 2
    code, out, _ = afftool("ablate", "mine.toml", "--workers", "0")
    assert (code, trained(out)) == (0, 0)
    assert "signal at initialisation" in (tmp_path / "ablations/gain.md").read_text()


def test_a_report_says_with_what_command_and_when_it_was_made(afftool: Run) -> None:
    afftool("ablate", "scale", *SMALL, "--seeds", "1", "--out", "said.md")
    said = Path("said.md").read_text()
    assert "**command**: afftool" in said
    assert f"**begun**: {datetime.now(UTC):%Y-%m-%d}" in said


def test_shards_of_several_machines_are_merged_into_the_whole(afftool: Run, tmp_path: Path) -> None:
    for part in ("1", "2"):
        code, out, err = afftool(
            "ablate", "scale", *SMALL, "--seeds", "1", "--shard", f"{part}/2", "--store", f"{part}.sqlite"
        )
        assert (code, trained(out)) == (0, 2 if part == "1" else 1)
        assert "runs merge" in err
    code, *_ = afftool("runs", "merge", "1.sqlite", "2.sqlite", "--store", "all.sqlite")
    assert code == 0
    code, out, _ = afftool("ablate", "scale", *SMALL, "--seeds", "1", "--store", "all.sqlite")
    assert (code, trained(out)) == (0, 0)
    assert (tmp_path / "ablations/scale.csv").exists()


def test_json_and_a_later_report_say_the_same(afftool: Run) -> None:
    code, out, err = afftool("ablate", "gain", *SMALL, "--seeds", "1", "--json")
    document = json.loads(out)
    assert code == 0
    assert trained(err) == 2
    assert set(document["variants"]) == {"gain=1", "gain=2"}
    code, again, _ = afftool("report", "latest", "--json")
    assert code == 0
    assert json.loads(again) == document


def test_a_users_fusion_goes_into_any_study(afftool: Run, tmp_path: Path) -> None:
    own_gate(tmp_path)
    code, out, _ = afftool("ablate", "scale", *SMALL, "--seeds", "1", "--variants", "add,aff,ablate_own:Gate")
    assert (code, trained(out)) == (0, 3)
    assert "ablate_own:Gate" in out


def own_gate(folder: Path) -> None:
    """A fusion of the user's own, `ablate_own:Gate`."""
    (folder / "ablate_own.py").write_text(
        "from torch import nn\n"
        "class Gate(nn.Module):\n"
        "    def __init__(self, channels):\n"
        "        super().__init__()\n"
        "        self.mix = nn.Conv2d(channels, channels, 1)\n"
        "    def forward(self, x, y):\n"
        "        return x + self.mix(y)\n"
    )


@pytest.mark.long
def test_fusions_are_placed_in_the_stages_of_a_host_with_two(afftool: Run, tmp_path: Path) -> None:
    own_gate(tmp_path)
    small = ("--host", "fpn:b=1", "--data", "shapes:size=16:train=64:test=40", *SMALL[4:], "--seeds", "1")
    code, out, err = afftool("ablate", "placement", *small)
    assert (code, trained(out)) == (0, 4), err
    code, out, err = afftool("ablate", "placement", *small, "--variants", "ablate_own:Gate")
    assert (code, trained(out)) == (0, 3), err
    rows = csv.DictReader(line for line in (tmp_path / "ablations/placement.csv").open() if not line.startswith("#"))
    placed = [f"ablate_own:Gate {stages}" for stages in ("stage 1", "stage 2", "stages 1-2")]
    assert [(row["variant"], row["against"]) for row in rows] == [("none", ""), *((name, "none") for name in placed)]


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(afftool: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from afftool.study.engines import local

    def interrupted(cells, data, folder):  # type: ignore[no-untyped-def]
        yield from local.run_here(cells[:1], data, folder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("afftool.cli.ablate.build_engine", lambda *_, **__: interrupted)
        code, out, err = afftool("ablate", "scale", *SMALL, "--seeds", "1")
    assert (code, trained(out)) == (130, 1)
    assert "the same command goes on" in err
    code, out, _ = afftool("ablate", "scale", *SMALL, "--seeds", "1")
    assert (code, trained(out)) == (0, 2)


def test_a_study_whose_every_cell_diverges_measured_nothing(afftool: Run) -> None:
    words = ("ablate", "gain", *SMALL, "--seeds", "1", "--recipe", "short:lr=1e20:warmup=0")
    for cells in (2, 0):  # the second time from the store: the exit code is the result's, not the run's
        code, out, err = afftool(*words)
        assert (code, trained(out)) == (6, cells)
        assert "diverged" in out
        assert "every cell failed" in err
        assert "diverged" in Path("ablations/gain.md").read_text()


def test_one_diverged_variant_shows_in_the_table(afftool: Run, tmp_path: Path) -> None:
    (tmp_path / "mixed.toml").write_text(
        'name = "mixed"\n[[variant]]\nfusion = "add"\n'
        '[[variant]]\nname = "wild"\nfusion = "aff"\nrecipe = { lr = 1e20, warmup = 0 }\n'
    )
    code, out, _ = afftool("ablate", "mixed.toml", *SMALL, "--seeds", "1")
    assert code == 0
    assert "diverged: the loss became" in (tmp_path / "ablations/mixed.md").read_text()
    assert "flatters a variant that diverges" in out


def logged(folder: Path, *tags: str) -> dict[str, list[tuple[int, float]]]:
    """Steps and values in a log, as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(folder))
    log.Reload()
    return {
        tag: [(event.step, event.value) for event in log.Scalars(tag)] for tag in tags or ("loss/train", "score/test")
    }


def test_tensorboard_gets_scalars_and_hyperparameters(afftool: Run, tmp_path: Path) -> None:
    code, *_ = afftool("ablate", "gain", *SMALL, "--epochs", "2", "--seeds", "1", "--tensorboard", "tb")
    assert code == 0
    scalars = logged(tmp_path / "tb" / "gain=1" / "seed-0", "loss/train", "score/test", "hparam/score")
    assert [step for step, _ in scalars["loss/train"]] == [1, 2]
    assert [value for _, value in scalars["score/test"]][-1:] == [value for _, value in scalars["hparam/score"]]


@pytest.mark.long
def test_cells_that_were_trained_before_are_logged_as_if_they_were_trained_now(afftool: Run, tmp_path: Path) -> None:
    words = ("ablate", "gain", *SMALL, "--epochs", "4", "--seeds", "1")
    afftool(*words, "--tensorboard", "live")
    live = logged(tmp_path / "live" / "gain=2" / "seed-0")
    assert len(live["score/test"]) > 1

    def log_again() -> None:
        code, out, _ = afftool(*words, "--tensorboard", "later")
        assert (code, trained(out)) == (0, 0)
        assert logged(tmp_path / "later" / "gain=2" / "seed-0") == live
        files = len(list((tmp_path / "later").rglob("*tfevents*")))
        afftool(*words, "--tensorboard", "later")
        assert len(list((tmp_path / "later").rglob("*tfevents*"))) == files

    log_again()
    afftool(*words, "--tensorboard", "later", "--fresh")  # the same numbers again, in place of the old
    log_again()


def image_folder(path: Path, *, masks: bool = False, label: int = 0) -> None:
    """Six images a split: of classes a and b, or with masks that hold `label`."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for number in range(6):
            pixels = Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8))
            if masks:
                for kind, image in (("images", pixels), ("masks", Image.fromarray(np.full((16, 16), label, np.uint8)))):
                    (path / split / kind).mkdir(parents=True, exist_ok=True)
                    image.save(path / split / kind / f"{number}.png")
            else:
                (path / split / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
                pixels.save(path / split / "ab"[number % 2] / f"{number}.png")


def test_void_that_nobody_declared_is_said_under_the_tables(afftool: Run, tmp_path: Path) -> None:
    image_folder(tmp_path / "street", masks=True)
    for path in (tmp_path / "street").glob("*/masks/*.png"):
        Image.fromarray(np.array([[0, 1, 1, 255] * 4] * 16, np.uint8)).save(path)
    words = ("--host", "fpn:b=1", "--epochs", "1", "--batch", "2", "--seeds", "1", "--workers", "0")
    code, out, _ = afftool("ablate", "gain", "--data", "masks:street", *words)
    assert (code, trained(out)) == (0, 2)
    assert "255 in the masks is taken as void" in out


@pytest.fixture
def wrong(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    image_folder(tmp_path / "classless")
    (tmp_path / "classless" / "train" / "c").mkdir()
    (tmp_path / "classless" / "test" / "c").mkdir()
    image_folder(tmp_path / "beyond", masks=True, label=9)
    image_folder(tmp_path / "few")
    image_folder(tmp_path / "unread")
    (tmp_path / "unread" / "train" / "a" / "9.png").symlink_to("/proc/self/mem")  # a file that answers with an error
    (tmp_path / "dead").symlink_to("gone")
    (tmp_path / "file").touch()
    (tmp_path / "cifar" / "test_batch").mkdir(parents=True)
    for number in range(1, 6):
        (tmp_path / "cifar" / f"data_batch_{number}").mkdir()
    (tmp_path / "parts").mkdir()
    for part in ("train", "test"):
        (tmp_path / "parts" / f"{part}.parquet").write_bytes(b"PAR1")
    (tmp_path / "ablate_own_wrong.py").write_text(
        "from torch import nn\n"
        "class Wrong(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "    def forward(self, x, y):\n"
        "        return (x + y)[:, :, ::2, ::2]\n"
    )
    (tmp_path / "half.toml").write_text("name = ")
    fat = '[[variant]]\nname = "fat"\nfusion = "aff:reduction=2"\n'
    for key, value in (("summary", "3"), ("data_seed", '"x"'), ("train_images", "96.5"), ("signal", '"yes"')):
        (tmp_path / f"bad_{key}.toml").write_text(f'{key} = {value}\n[[variant]]\nfusion = "aff"\n' + fat)
    (tmp_path / "outside.toml").write_text('name = "../outside"\n[[variant]]\nfusion = "aff"\n' + fat)
    (tmp_path / "table.toml").write_text('published = "scael"\n[[variant]]\nfusion = "aff"\n' + fat)
    (tmp_path / "off.toml").write_text('[budget]\ntolerance = 0.0\n[[variant]]\nfusion = "aff"\n' + fat)


@pytest.mark.usefixtures("wrong")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sacle"], ["unknown study", "did you mean 'scale'"]),
        (["half.toml"], ["half.toml", "not TOML"]),
        (["none.toml"], ["none.toml", "--print"]),
        (["scale", "--data", "folder:nowhere"], ["nowhere"]),
        (["scale", "--data", "folder:nothing"], ["nothing"]),
        (["scale", "--data", "parquet:nothing"], ["nothing"]),
        (["scale", "--data", "folder:classless", "--batch", "2"], ["'c'"]),
        (["scale", "--data", "masks:beyond:classes=3", "--host", "fpn:b=1", "--batch", "2"], ["9", "classes"]),
        (["scale", "--data", "masks:beyond:classes=300", "--host", "fpn:b=1"], ["300 classes", "hint"]),
        (["scale", "--data", "folder:few", "--batch", "64"], ["batch of 64", "6 training images", "--batch 2"]),
        (["scale", "--data", "folder:unread", "--batch", "2"], ["9.png", "Input/output error", "hint"]),
        (["scale", "--data", "masks:dead"], ["dead", "hint"]),
        (["scale", "--data", "cifar10:cifar"], ["data_batch_1", "is a folder", "hint"]),
        (["scale", "--data", "parquet:parts"], ["train.parquet", "hint"]),
        (["scale", "--data", "digits", "--train-images", "5"], ["5 training images", "10 classes"]),
        (
            ["scale", "--data", "digits", "--variants", "aff,ablate_own_wrong:Wrong"],
            ["ablate_own_wrong:Wrong", "shape"],
        ),
        (["scale", "--data", "digits", "--variants", "aff,ablate_own_missing:Gate"], ["ablate_own_missing"]),
        (["off.toml", "--data", "digits"], ["budget", "fat"]),
        (["bad_summary.toml"], ["summary", "text"]),
        (["bad_data_seed.toml"], ["data_seed", "whole number"]),
        (["bad_train_images.toml"], ["train_images", "whole number"]),
        (["bad_signal.toml"], ["signal", "true or false"]),
        (["outside.toml"], ["../outside", "name a study"]),
        (["table.toml"], ["did you mean 'scale'"]),
        (["scale", "--margin", "0"], ["--margin 0 is no difference", "hint", "half a point"]),
        (["scale", "--margin", "nan"], ["--margin nan is no difference"]),
        (["scale", "--data-seed", "-1"], ["data_seed", "is no whole number from 0"]),
        (["scale", "--data", "digits", "--host", "module"], ["module"]),
        (["scale", "--data", "digits", "--epochs", "1", "--host", "resnet:classes=3"], ["classes"]),
        (["scale", "--shard", "3/2"], ["3/2"]),
        (["scale", "--engine", "slurm"], ["slurm"]),
        (["scale", "--address", "auto"], ["--engine ray"]),
        (["scale", "--workers", "-1"], ["--workers"]),
        (["scale", "--engine", "ray", "--workers", "0"], ["--workers 0", "hint"]),
        (["scale", "--engine", "ray", "--workers", "1", "--threads", "4000"], ["--threads 4000", "hint"]),
        (["scale", "--engine", "ray", "--workers", "1", "--gpus", "-1"], ["--gpus -1", "hint"]),
        (["scale", "--engine", "ray", "--workers", "1", "--gpus", "999"], ["GPU", "hint"]),
        (["scale", "--engine", "ray", "--workers", "1", "--address", "nowhere"], ["'nowhere'", "HOST:PORT"]),
        (["scale", "--engine", "ray", "--workers", "1", "--address", "localhost:1"], ["localhost:1", "ray start"]),
        (["scale", "--device", "gpu"], ["device"]),
        (["scale", "--out", "x.docx"], [".docx"]),
        (["placement", "--data", "digits", "--host", "ablate_own_wrong:Wrong"], ["`stages`", "hint", "stages=1-3"]),
        (["scale", "--data", "digits", "--tensorboard", "file"], ["file cannot be written", "hint"]),
        (["scale", "--data", "digits", "--tensorboard", "file/below"], ["file/below cannot be written", "hint"]),
    ],
)
def test_wrong_input_is_answered_with_what_is_wrong_and_exit_2(afftool: Run, words: list[str], says: list[str]) -> None:
    workers = [] if "--workers" in words else ["--workers", "0"]
    code, out, err = afftool("ablate", *words, *workers)
    assert (code, trained(out)) == (2, 0), err
    assert "Traceback" not in err
    for part in says:
        assert part in err
    assert not Path(".afftool/runs.sqlite").exists() or not trained(out)


LITTLE = ("--data", "digits", "--train-images", "60", "--epochs", "1", "--seeds", "1", "--workers", "0")


def test_a_batch_that_was_not_chosen_shrinks_with_the_data_and_one_that_was_is_refused(
    afftool: Run, tmp_path: Path
) -> None:
    said = "The batch is 15 and not the recipe's 64, of which 60 training images hold none"
    code, out, err = afftool("ablate", "gain", *LITTLE)
    assert (code, trained(out)) == (0, 2)
    assert said in err
    assert said in out
    assert "batch 15" in (tmp_path / "ablations/gain.md").read_text()
    assert trained(afftool("ablate", "gain", *LITTLE, "--batch", "15")[1]) == 0  # the same cells
    assert said in afftool("ablate", "gain", *LITTLE, "--recipe", "short:flip=true")[2]
    (tmp_path / "mine.toml").write_text(afftool("ablate", "gain", *LITTLE, "--print")[1])
    for words in (
        ["gain", *LITTLE, "--batch", "64"],
        ["gain", *LITTLE, "--recipe", "short:batch=64"],
        ["mine.toml"],
        ["mine.toml", "--recipe", ":flip=true"],
    ):
        code, out, err = afftool("ablate", *words)
        assert (code, trained(out)) == (2, 0), words
        assert "a batch of 64 is larger than the data" in err
        assert "use --batch 15 or less" in err


def test_a_data_file_that_changed_since_has_its_cells_trained_again_and_no_others(afftool: Run, tmp_path: Path) -> None:
    (tmp_path / "ablate_own_reads.py").write_text(
        "import json\nfrom pathlib import Path\nfrom torch import nn\n\n\n"
        "class Gate(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.scale = json.loads(Path(__file__).with_name('gate.json').read_text())\n\n"
        "    def forward(self, x, y):\n        return x + self.scale * y\n"
    )
    words = ("ablate", "scale", *SMALL, "--seeds", "1", "--variants", "add,ablate_own_reads:Gate")
    (tmp_path / "gate.json").write_text("0.5")
    assert trained(afftool(*words)[1]) == 2
    code, out, _ = afftool(*words)
    assert (code, trained(out)) == (0, 0)
    assert "the code of ablate_own_reads; gate.json, read while it was built. Taken on trust: environment" in out
    (tmp_path / "gate.json").write_text("0.25")
    assert trained(afftool(*words)[1]) == 1
