import json

import pytest
import torch
from torch import nn

from benchmarks.coverage import main
from benchmarks.coverage_checks import TOOLS
from benchmarks.coverage_models import TIMM, is_installed, names_of
from benchmarks.coverage_table import markdown
from benchmarks.subjects import Subject, awaken_
from benchmarks.zoo_models import ZOO

ROW = {
    "parameters": 1000,
    "left": 640,
    "seconds": 0.25,
    "frozen": {"model output": 1, "a function of all channels (_softmax)": 2},
    "equal": True,
    "batch": True,
    "size": "fixed",
    "trains": True,
    "loads": "other outputs",
}
INT8 = {"parameters": 1000, "kernels": 7, "layers": 9, "int8_layers": 8, "db_1": 31.26, "db_3": "fails | so"}
ROWS = {
    "compress timm a": ROW,
    "compress timm b c": {"error": "more than 9 s"},
    "exports timm a": {"equal": True, "batch": "differs by 2.0e-02"},
    "int8 timm a": INT8,
    "int8 timm b c": {"error": "no | kernel"},
    "factorizes timm a": {"parameters": 1000, "left": 310, "runs": True},
    "torch_pruning timm a": {"parameters": 1000, "left": 870, "seconds": 1.0},
    "torch_pruning timm b c": {"parameters": 1000, "left": 640, "seconds": 1.0},
}


def test_the_table_says_what_was_measured_and_what_stays_whole():
    """A row a network, failures with their message, and the comparison only over what both tools did."""
    text = markdown("# Preface\n", ["timm"], ROWS)
    assert text.startswith("# Preface\n")
    assert (
        "| a | 1,000 | 0.640 | 0.25 | yes | yes | fixed | yes | other outputs | differs by 2.0e-02 | 7 (8 of 9) "
        "| 31.3, fails \\| so | 0.310 | 2x a function of all channels (_softmax) | 0.870 | 1.00 |"
    ) in text
    assert "| b c |  |  |  |  |  |  |  |  |  | no \\| kernel |  |  | more than 9 s | 0.640 | 1.00 |" in text
    assert "1 of 2 networks pruned" in text
    assert "Equal to the masked network: 1 of 1. The same at another batch: 1 of 1. At another size: 0 of 0." in text
    assert "Saved and loaded: 0 of 1. Exported: 0 of 1. With int8 kernels: 1 of 2. Factorized: 1 of 1." in text
    assert "Over the 1 that both did it took 1.0 s in sum, this 0.2 s: 4.0 times as long." in text


def test_families_that_were_not_measured_stay_as_they_are_in_the_document():
    """One family can be measured anew; whatever the document says of the others is kept, in the order of families."""
    before = "# Old\n\n## video\n\nold line\n\n| row |\n\n## timm\n\nold\n"
    text = markdown("# New\n", ["video", "timm", "zoo"], ROWS, before)
    assert text.startswith("# New\n\n## video\n\nold line\n\n| row |\n\n## timm\n\n1 of 2 networks")
    assert "zoo" not in text
    assert markdown("# New\n", ["video", "timm"], ROWS, text) == text.replace("## zoo", "")


def test_what_was_not_measured_anew_stays_in_its_cells():
    """One tool can be measured anew; what the document says of the others is kept, and the summary is of both."""
    before = markdown("# Preface\n", ["timm"], {key: row for key, row in ROWS.items() if not key.startswith("int8")})
    assert "With int8" not in before
    assert markdown(
        "# Preface\n", ["timm"], {"int8 timm a": INT8, "int8 timm b c": {"error": "no | kernel"}}, before
    ) == (markdown("# Preface\n", ["timm"], ROWS))


def test_sixty_families_of_timm_and_all_classifiers_are_tried():
    """No network stands twice."""
    assert len(set(TIMM)) == len(TIMM) >= 60
    assert len(names_of("classification")) == 80


def test_the_zoo_has_the_families_that_people_compress():
    """Language, vision, speech, detection, segmentation, diffusion and medical networks, each by its package."""
    wanted = {
        "transformers": "bert distilbert vit swin convnext clip whisper gpt2 llama qwen3 gemma3 phi3 t5 mamba mixtral "
        "segformer detr wav2vec2",
        "ultralytics": "yolov8n yolo11n yolo12n yolo26n yolov8n-seg yolov8n-cls rtdetr-resnet50",
        "segmentation-models": "DeepLabV3 DeepLabV3Plus DPT FPN Linknet MAnet PAN PSPNet Segformer Unet UnetPlusPlus",
        "diffusers": "UNet2D UNet2DCondition AutoencoderKL DiT",
        "monai": "UNet SwinUNETR",
    }
    assert {family: set(names.split()) - set(ZOO[family][1]) for family, names in wanted.items()} == {
        family: set() for family in wanted
    }
    assert is_installed("classification")


def test_what_stands_in_the_results_is_not_measured_again(tmp_path):
    """A run that was cut off goes on where it was; the table is written from all results."""
    results, output = tmp_path / "results.json", tmp_path / "table.md"
    results.write_text('{"compress classification resnet18": {"error": "kept"}}')
    arguments = ["--family", "classification", "--only", "resnet18", "--results", str(results), "--output", str(output)]
    assert main(arguments) == 0
    assert "| kept |" in output.read_text()


def test_unknown_families_are_refused(capsys):
    """The command line names the families there are."""
    with pytest.raises(SystemExit):
        main(["--family", "nothing"])
    assert "classification" in capsys.readouterr().err


class Small(nn.Module):
    """``[n, 3, h, w] -> [n, 5]``, and a second output that no one asks for."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.hidden = nn.Linear(16, 24)
        self.layer_norm = nn.LayerNorm(24)
        self.head = nn.Linear(24, 5)

    def forward(self, x):
        features = self.norm(self.stem(x)).relu().mean((2, 3))
        return self.head(self.layer_norm(self.hidden(features)).relu())


def small():
    """A subject, the same each time."""
    torch.manual_seed(0)
    shapes = {"batch": (3, 3, 8, 8), "size": (1, 3, 12, 12)}
    others = {what: (torch.randn(shape),) for what, shape in shapes.items()}
    return awaken_(Subject(model=Small(), example=(torch.randn(1, 3, 8, 8),), others=others))


def test_a_network_that_keeps_all_promises_says_so():
    """Equal at two batches and sizes, trained, saved and loaded; and the row is one that JSON can hold."""
    row = TOOLS["compress"](small(), lambda: small().model)
    assert {what: row[what] for what in ("equal", "batch", "size", "trains", "loads")} == dict.fromkeys(
        ("equal", "batch", "size", "trains", "loads"), True
    )
    assert json.loads(json.dumps(row)) == row
    row = TOOLS["factorizes"](small(), lambda: small().model)
    assert row["runs"] is True
    assert row["left"] < sum(parameter.numel() for parameter in Small().parameters())


def test_what_the_dense_network_cannot_do_is_asked_of_no_pruned_one():
    """A network of one image size that has no gradients is no failure of the cut."""

    class Fixed(Small):
        def forward(self, x):
            with torch.no_grad():
                return super().forward(x.reshape(-1, 3, 8, 8))

    one = small()
    fixed = Subject(
        model=Fixed().eval(), example=one.example, others={**one.others, "size": (torch.randn(1, 3, 5, 7),)}
    )
    row = TOOLS["compress"](fixed, Fixed)
    assert (row["equal"], row["batch"], row["size"], row["trains"]) == (True, True, "fixed", "fixed")


@pytest.mark.nightly
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("family", "name"),
    [("transformers", "bert"), ("transformers", "llama"), ("diffusers", "DiT"), ("monai", "UNet")],
)
def test_the_zoo_keeps_its_promises(family, name, tmp_path):
    """Each tool, in a process of its own, on a network of another family."""
    if not is_installed(family):
        pytest.skip(f"{family} is not installed (the extra 'zoo')")
    results, output = tmp_path / "results.json", tmp_path / "table.md"
    files = ["--results", str(results), "--output", str(output), "--limit", "600"]
    assert main(["--family", family, "--only", name, *files]) == 0
    rows = json.loads(results.read_text())
    assert set(rows) == {f"{tool} {family} {name}" for tool in ("compress", "exports", "int8", "factorizes")}
    pruned = rows[f"compress {family} {name}"]
    assert {pruned.get(what) for what in ("equal", "batch", "size", "trains", "loads")} == {True}
    assert pruned["left"] <= 0.75 * pruned["parameters"]
    assert f"| {name} |" in output.read_text()
