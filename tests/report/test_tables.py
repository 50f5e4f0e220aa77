import numpy as np

from pizero_jax.report.tables import markdown, percent_interval


def test_table_is_aligned_and_numbers_stand_to_the_right():
    rows = [{"task": "reach-v3", "success": 0.9412345, "steps": 1500}, {"task": "push", "success": np.float32(0.5)}]
    assert markdown(rows).splitlines() == [
        "| task     | success | steps |",
        "| -------- | ------: | ----: |",
        "| reach-v3 |  0.9412 |  1500 |",
        "| push     |     0.5 |       |",
    ]


def test_columns_are_chosen_and_ordered():
    table = markdown([{"a": 1, "b": 2, "c": 3}], columns=["c", "a"])
    assert table.splitlines()[0].replace(" ", "") == "|c|a|"
    assert "2" not in table


def test_a_pipe_or_a_newline_in_a_cell_does_not_break_the_row():
    lines = markdown([{"text": "a|b\nc"}]).splitlines()
    assert len(lines) == 3
    assert lines[2] == r"| a\|b c |"


def test_large_and_small_numbers_stay_readable():
    cells = markdown([{"x": 123456.7}, {"x": 0.00001234}, {"x": 1e12}, {"x": float("nan")}, {"x": 30000}])
    assert [line.strip("| ") for line in cells.splitlines()[2:]] == ["123457", "1.234e-05", "1e+12", "nan", "30000"]


def test_true_and_false_read_as_words():
    assert "yes" in markdown([{"blind": True}])
    assert "no" in markdown([{"blind": np.False_}])


def test_no_rows_give_an_empty_table():
    assert markdown([]) == ""
    assert len(markdown([], columns=["a"]).splitlines()) == 2


def test_percent_interval_reads_as_documented():
    assert percent_interval(47, 50) == "47/50 = 94% (95% interval 84-98%)"
    assert percent_interval(0, 10) == "0/10 = 0% (95% interval 0-28%)"
