from __future__ import annotations

import pytest

from compress.commands.cli import main
from compress.commands.runtimes import best
from compress.measure.runtimes import RuntimeRow


def test_the_table_has_a_row_for_each_batch_precision_and_runtime(tmp_path, capsys):
    """Dense and compressed under both runtimes at both batch sizes, with ratios."""
    recipe = tmp_path / "cut.toml"
    recipe.write_text('[[steps]]\nuse = "prune_channels"\npruning_ratio = 0.25\n')
    command = ["runtimes", "--workload", "tests.workloads:tiny_workload", "--recipe", str(recipe), "--quiet"]
    assert main([*command, "--batch", "1", "2", "--runtime", "eager", "onnxruntime", "--seconds", "0"]) == 0
    table = capsys.readouterr().out
    rows = [line.split("│")[1:-1] for line in table.splitlines() if line.startswith("│")]
    names = [tuple(cell.strip() for cell in row[:3]) for row in rows]
    assert names == [
        (batch, precision, runtime)
        for batch in ("1", "2")
        for precision in ("float32", "cut")
        for runtime in ("eager", "onnxruntime")
    ]
    assert " changed " in table
    assert rows[0][5].strip() == rows[0][6].strip() == "1.00"
    assert [row[8].strip() for row in rows] == ["0.00%"] * 8
    assert all(float(row[9]) > 0 for row in rows)
    assert all(float(row[4]) > 0 for row in rows)


def test_any_task_is_compared(capsys):
    """What is no classifier, by the relative error of its outputs."""
    command = ["runtimes", "--workload", "diabetes", "--batch", "3", "--runtime", "eager", "onnxruntime"]
    assert main([*command, "--seconds", "0", "--examples", "20", "--quiet"]) == 0
    table = capsys.readouterr().out
    assert "output error" in table
    rows = [line.split("│")[1:-1] for line in table.splitlines() if line.startswith("│")]
    assert [(row[2].strip(), row[8].strip()) for row in rows] == [("eager", "0.00%"), ("onnxruntime", "0.00%")]


def row(runtime, milliseconds, **told):
    """One that was timed ten times."""
    times = [milliseconds * (1 + number % 3 / 1000) for number in range(10)]
    return RuntimeRow(runtime=runtime, precision="float32", batch=1, latencies_ms=times, **told)


def test_the_best_is_the_fastest_that_answers_as_its_model_does():
    """With the interval of its gain, and those that are no slower for all that is known."""
    rows = [row("eager", 8.0), row("inductor", 2.001), row("onnxruntime", 2.0), row("openvino", 1.0, parity=0.02)]
    told = best(rows, 1, "cpu-avx2-1t")
    assert told.startswith("batch 1 on cpu-avx2-1t: float32 under onnxruntime, 2.00 ms, x4.00 [4.00, 4.00] as fast")
    assert "openvino" not in told
    assert best([row("inductor", 1.0)], 1, "cpu-avx2-1t").endswith("nothing ran that could be compared")


def test_what_is_no_slower_is_named():
    """Where one is ahead in some rounds and behind in others."""
    one, other = row("inductor", 2.0), row("onnxruntime", 2.0)
    other.latencies_ms = [time * (0.9 if number % 2 else 1.11) for number, time in enumerate(other.latencies_ms)]
    told = best([row("eager", 8.0), one, other], 1, "cpu-avx2-1t")
    assert "; no slower, as far as this shows: float32 under " in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--runtime", "tvm"],
            "runtime must be one of eager, inductor, onnxruntime, aotinductor, openvino, executorch, got 'tvm'",
        ),
        (["--batch", "0"], "--batch must be at least 1, got 0"),
        (["--threads", "0"], "--threads must be at least 1, got 0"),
        (["--examples", "-1"], "--examples must be at least 0, got -1"),
        (
            ["--best", "--runtime", "inductor"],
            "--best compares with eager, which --runtime leaves out: inductor",
        ),
        (["--recipe", "gone.toml"], "cannot read recipe gone.toml: No such file or directory"),
    ],
)
def test_a_wrong_option_is_one_sentence_before_any_work(capsys, options, message):
    """The rule and the value."""
    assert main(["runtimes", *options]) == 1
    assert capsys.readouterr().err == f"error: {message}\n"
