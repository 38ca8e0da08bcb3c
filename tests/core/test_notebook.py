"""What results show of themselves in a notebook."""

import pandas as pd

from kit.core.notebook import Picture, ShownAsTables
from kit.core.plotting import new_figure


class Result(ShownAsTables):
    def tables(self):
        rows = pd.DataFrame({"<name>": ["a & b", None], "score": [0.123456, float("nan")]})
        return {"found > 1": rows, "nothing": rows.head(0)}

    def remarks(self):
        return ["a < b"]


def test_tables_and_remarks_are_escaped():
    html = Result()._repr_html_()
    for text in ("<b>found &gt; 1</b>", "&lt;name&gt;", "a &amp; b", "0.1235", "<p>a &lt; b</p>"):
        assert text in html
    assert html.count("<table") == 1  # an empty one is left out
    assert "nan" not in html.lower()


def test_a_picture_is_shown_and_saved(tmp_path):
    picture = Picture(new_figure(2, 1))
    assert picture._repr_png_().startswith(b"\x89PNG")
    picture.save(tmp_path / "picture.svg")
    assert "<svg" in (tmp_path / "picture.svg").read_text()
