"""Tables as text and as Markdown."""

from __future__ import annotations

import pytest

from u2net_hub.tables import markdown_table, text_table

HEAD, ROWS = ["model", "S", "MAE"], [["u2netp", ".918", ".041"], ["a", "", "–"]]


def test_text_has_the_first_column_on_the_left_and_numbers_on_the_right():
    assert text_table(HEAD, ROWS) == [
        "model      S   MAE",
        "u2netp  .918  .041",
        "a                –",
    ]


def test_text_columns_have_at_least_the_width_asked_for():
    assert text_table(["", "S"], [["a", "1"]], width=8) == ["        S", "a       1"]


def test_markdown_has_a_line_below_its_head():
    assert markdown_table(HEAD, ROWS) == [
        "| model | S | MAE |",
        "| --- | --- | --- |",
        "| u2netp | .918 | .041 |",
        "| a |  | – |",
    ]


def test_aligned_markdown_has_lines_of_one_length():
    assert markdown_table(HEAD, ROWS, aligned=True) == [
        "| model  | S    | MAE  |",
        "| ------ | ---- | ---- |",
        "| u2netp | .918 | .041 |",
        "| a      |      | –    |",
    ]


def test_a_bar_in_a_cell_does_not_end_it():
    assert markdown_table(["a"], [["x|y"]])[2] == r"| x\|y |"


@pytest.mark.parametrize("table", [text_table, markdown_table])
def test_a_row_of_another_length_is_refused(table):
    with pytest.raises(ValueError, match=r"shorter|longer"):
        table(HEAD, [["a", "b"]])
