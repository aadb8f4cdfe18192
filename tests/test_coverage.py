import pytest

from benchmarks.coverage import main, markdown
from benchmarks.coverage_models import TIMM, names_of

ROW = {
    "parameters": 1000,
    "left": 640,
    "seconds": 0.25,
    "frozen": {"model output": 1, "a function of all channels (_softmax)": 2},
    "batch": True,
    "size": "fixed",
}


def test_the_table_says_what_was_measured_and_what_stays_whole():
    """A row a network, failures with their message, and the comparison only over what both tools did."""
    text = markdown(
        {
            "compress timm a": ROW,
            "compress timm b": {"error": "more than 9 s"},
            "torch_pruning timm a": {**ROW, "left": 870, "seconds": 1.0},
            "torch_pruning timm b": ROW,
        }
    )
    assert (
        "| a | 1,000 | 0.640 | 0.25 | yes | fixed | 2x a function of all channels (_softmax) | 0.870 | 1.00 |" in text
    )
    assert "| b | | | | | | more than 9 s | 0.640 | 0.25 |" in text
    assert "1 of 2 networks pruned" in text
    assert "over the 1 that both did it took 1.0 s in sum, this 0.2 s: 4.0 times as long" in text


def test_sixty_families_of_timm_and_all_classifiers_are_tried():
    """No network stands twice."""
    assert len(set(TIMM)) == len(TIMM) >= 60
    assert len(names_of("classification")) == 80


def test_what_stands_in_the_results_is_not_measured_again(tmp_path):
    """A run that was cut off goes on where it was; the table is written from all results."""
    results, output = tmp_path / "results.json", tmp_path / "table.md"
    results.write_text('{"compress classification resnet18": {"error": "kept"}}')
    arguments = ["--family", "classification", "--only", "resnet18", "--results", str(results), "--output", str(output)]
    assert main(arguments) == 0
    assert "| resnet18 | | | | | | kept |" in output.read_text()


def test_unknown_families_are_refused(capsys):
    """The command line names the families there are."""
    with pytest.raises(SystemExit):
        main(["--family", "nothing"])
    assert "classification" in capsys.readouterr().err
