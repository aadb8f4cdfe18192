from __future__ import annotations

import pytest

from compress.commands.cli import main


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
    assert rows[0][5].strip() == rows[0][6].strip() == "1.00"
    assert all(float(row[4]) > 0 for row in rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--runtime", "tvm"], "runtime must be one of eager, inductor, onnxruntime, aotinductor, got 'tvm'"),
        (["--batch", "0"], "--batch must be at least 1, got 0"),
        (["--threads", "0"], "--threads must be at least 1, got 0"),
        (["--recipe", "gone.toml"], "cannot read recipe gone.toml: No such file or directory"),
    ],
)
def test_a_wrong_option_is_one_sentence_before_any_work(capsys, options, message):
    """The rule and the value."""
    assert main(["runtimes", *options]) == 1
    assert capsys.readouterr().err == f"error: {message}\n"
