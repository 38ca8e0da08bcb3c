"""The report as a page: what stands in it against what it was made from, its size, and hostile names."""

import base64
import gzip
import html
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs
from support.colours import write_competition
from support.made_up_runs import GROUPS, POLICIES, write_experiment

from kit.core.paths import OutputDirs
from kit.core.plotting import COLOURS
from kit.experiment.policy_scores import PolicyScores
from kit.report.figures import by_class, drawing
from kit.report.gather import gather
from kit.report.material import PolicyData, PolicyOutcome, ReportData
from kit.report.page import render

HOSTILE = ('<script>alert("1")</script>', "a&b\"c'", "</script><b>&lt;")
TEN = POLICIES | {
    f"decay{i}": {"lr": 1e-2, "profile": {"name": "layer_decay", "decay": 0.5 + i / 20}} for i in range(7)
}


def content_of(page: str) -> dict:
    """The figures, as the page holds them."""
    text = page.split('<script type="application/json" id="figures">')[1].split("</script>")[0]
    return json.loads(text)


def table_of(page: str, name: str) -> list[list[str]]:
    body = page.split(f'<table id="table-{name}"')[1].split("<tbody>")[1].split("</tbody>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
    return [[html.unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)] for row in rows]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Ten policies with probes, of 6 layers and 50 samples, on classes whose names are markup."""
    root = tmp_path_factory.mktemp("hostile")
    data = write_competition(root / "colours", rows=60)
    for file in ("train.csv", "sample_submission.csv"):
        table = pd.read_csv(data / file)
        table["label"] = table["label"].map(dict(zip(("blue", "green", "red"), HOSTILE, strict=True)))
        table.to_csv(data / file, index=False)
    folder = write_experiment(root, data, policies=TEN, seeds=1, samples=50)
    return gather(folder, OutputDirs(root))


@pytest.fixture(scope="module")
def page(hostile) -> str:
    return render(hostile)


@pytest.fixture(scope="module")
def drawn(page):
    return content_of(page)


def test_ten_policies_with_probes_stay_below_five_megabytes(page, hostile):
    assert len(hostile.policies) == 10
    assert len(hostile.policies[0].activations.layers) == 6
    assert len(hostile.policies[0].activations.steps) == 50
    assert len(page.encode()) < 5_000_000


def test_the_same_data_give_the_same_page(page, hostile):
    assert render(hostile) == page


def test_plotly_is_packed_into_the_page_and_nothing_is_fetched(page):
    packed = page.split('id="plotly">')[1].split("</script>")[0]
    assert gzip.decompress(base64.b64decode(packed)).decode() == get_plotlyjs()
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "default-src 'none'" in page


def test_names_cannot_break_out(page, drawn):
    assert page.count("<script") == page.count("</script>") == 3
    assert "alert(" not in page.replace("alert(&#34;1&#34;)", "").replace('alert(\\"1\\")', "")
    assert html.escape(HOSTILE[0]).replace("&quot;", "&#34;") in page
    texts = json.dumps(drawn)
    assert "<script" not in texts  # Plotly reads tags in its texts
    assert {row[0] for row in table_of(page, "per-class")} == set(HOSTILE)


def test_every_figure_has_its_place_caption_and_is_one_for_plotly(page, drawn):
    dirs = re.findall(r'<div class="plot" id="plot-([^"]+)" data-figure="([^"]+)"', page)
    assert [a for a, _ in dirs] == [b for _, b in dirs]
    assert sorted(a for a, _ in dirs) == sorted(drawn)
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page, re.DOTALL)
    assert len(captions) == len(drawn)
    assert all(len(caption) > 40 and caption.rstrip().endswith(".") for caption in captions)
    for figure in drawn.values():
        go.Figure(figure)  # raises for what it does not know


def test_sections_come_in_order(page):
    assert re.findall(r'<section id="([^"]+)"', page) == [
        "verdict", "differences", "folds", "curves", "rates", "activations", "learning", "classes", "mistakes",
        "rules", "ran",
    ]  # fmt: skip


def test_verdicts_stand_first(page, hostile):
    top = page.index(html.escape(hostile.comparison.headline, quote=False))
    assert top < page.index('class="plot"')
    for view in hostile.comparison.to_json()["views"]:
        for each in view["comparisons"]:
            assert f"<b>{each['policy']}</b>{each['verdict']}: {each['sentence']}" in html.unescape(page)
        rows = table_of(page, f"comparison-{view['name']}")
        assert [row[0] for row in rows] == [each["policy"] for each in view["policies"]]
        assert [row[1] for row in rows] == [f"{each['oof']:.4f}" for each in view["policies"]]


def test_the_forest_shows_differences_intervals_and_margin(drawn, hostile):
    figure, comparisons = (
        drawn["forest"],
        [e for v in hostile.comparison.to_json()["views"] for e in v["comparisons"]],
    )
    points = [trace["x"][0] for trace in figure["data"] if trace["mode"] == "markers"]
    assert sorted(points) == pytest.approx(sorted(each["difference"] for each in comparisons))
    thick = [tuple(trace["x"]) for trace in figure["data"] if trace.get("line", {}).get("width") == 4]
    assert sorted(thick) == sorted(
        (e["interval"]["low"], e["interval"]["high"]) for e in comparisons if e["interval"]
    )
    thin = [tuple(trace["x"]) for trace in figure["data"] if trace.get("line", {}).get("width") == 1.2]
    assert len(thin) == len(comparisons)
    band = figure["layout"]["shapes"][0]
    assert (band["x0"], band["x1"]) == (-0.01, 0.01)


def test_scores_by_fold_are_those_of_the_runs(drawn, hostile):
    runs = [run.score for view in hostile.views() for each in view.policies for run in each.runs]
    shown = [x for trace in drawn["by-fold"]["data"] if trace["mode"] == "markers" for x in trace["x"]]
    assert sorted(shown) == sorted(runs)


def test_curves_are_means_over_runs(drawn, hostile):
    lines = [trace for trace in drawn["curves"]["data"] if "hovertemplate" in trace]
    loss = next(trace for trace in lines if (trace["name"], trace["yaxis"]) == ("uniform", "y"))
    histories = hostile.policies[0].histories
    last = np.mean([[line["loss"] for line in history if "loss" in line][-1] for history in histories])
    assert loss["y"][-1] == pytest.approx(last, rel=1e-3)


def test_rates_are_those_recorded_on_one_scale(drawn, hostile):
    cards = [drawn[f"rates-{i}"] for i in range(10)]
    assert len({tuple(card["layout"]["yaxis"]["range"]) for card in cards}) == 1
    realised = [trace for trace in cards[1]["data"] if "hovertemplate" in trace]
    for depth, trace in enumerate(realised):
        expected = hostile.policies[1].rates.lr[trace["x"], depth]
        np.testing.assert_allclose(np.array(trace["y"], dtype=float), expected, rtol=1e-3)
    assert [trace["name"] for trace in realised] == list(GROUPS)


def test_heat_maps_share_their_scales_and_hold_the_counts(drawn, hostile):
    cards = [drawn[f"activations-{i}"] for i in range(10)]
    for layer in range(6):
        axis = "yaxis" if layer == 0 else f"yaxis{layer + 1}"
        assert len({tuple(card["layout"][axis]["range"]) for card in cards}) == 1
        assert len({card["data"][layer]["zmax"] for card in cards}) == 1
    made, heat = hostile.policies[1].activations, cards[1]["data"][2]
    assert np.shape(heat["z"]) == (41, 50)
    total = made.counts[-1, 2].sum()
    assert (10 ** np.array(heat["z"])[:, -1] - 1).sum() == pytest.approx(total, rel=0.03)


def test_captions_say_what_moved(page):
    plain = page.replace("\N{NO-BREAK SPACE}", " ")
    assert "stem moved by 0.0084 % of its norm under discriminative and by 84 % under" in plain
    assert "Realised and intended rates are the same in all of them." in page


def test_confusions_are_counts_of_rows(drawn, hostile):
    best = max(hostile.policies, key=lambda policy: policy.scores.oof)
    counts = np.array(drawn["confusion-0"]["data"][0]["customdata"])
    outcome = best.outcome
    assert counts.sum() == len(outcome.truth)
    assert counts[0, 1] == ((outcome.truth == 0) & (outcome.predicted == 1)).sum()


def test_rules_ledger_and_circumstances_are_there(page, hostile):
    rules = table_of(page, "rules")
    assert len(rules) == sum(len(policy.scores.rules) for policy in hostile.policies)
    assert [row[0] for row in table_of(page, "ledger")] == list(TEN)
    assert table_of(page, "tuning")[0][-1] == "diverged"
    assert "What all runs depend on: config c0ffee, folds f01d." in page
    assert "Devices: cpu, fp32 (30 runs)." in page
    assert "<details>" in page


def test_policies_are_told_apart_without_colour(hostile):
    styles = drawing.styles_of(hostile).values()
    assert len(set(styles)) == 10
    assert {style.colour for style in styles} == set(COLOURS)
    assert [style.marks for style in styles] == [False] * 7 + [True] * 3


def test_one_policy_without_a_comparison(hostile):
    one = replace(hostile, policies=hostile.policies[:1], comparison=None)
    made = render(one)
    assert "With one policy there is nothing to compare" in made
    shown = content_of(made)
    assert "forest" not in shown
    assert {"by-fold", "curves", "rates-0", "activations-0", "confusion-0"} <= set(shown)


def test_nothing_but_a_name():
    made = render(ReportData("bare", "macro F1", "uniform", [PolicyData("uniform")]))
    assert content_of(made) == {}
    assert "training.probes" in made


def test_many_labels_show_the_lowest_and_the_most_confused():
    generator = np.random.default_rng(0)
    classes = [f"class{i:02d}" for i in range(40)]
    truth = generator.integers(0, 40, 800)
    predicted = np.where(generator.random(800) < 0.7, truth, generator.integers(0, 40, 800))
    scores = PolicyScores.model_construct(
        oof=0.7,
        optimistic=0.7,
        per_class=[{"class": name, "f1": i / 40, "rows": 20, "name": name} for i, name in enumerate(classes)],
        rules=[],
        runs=[],
    )
    outcome = PolicyOutcome(pd.RangeIndex(800), truth, predicted, np.zeros(800))
    policy = PolicyData("uniform", scores=scores, outcome=outcome)
    report_data = ReportData("many", "macro F1", "uniform", [policy], classes=classes, names=classes)
    assert by_class.confusion(report_data) == []
    made = render(report_data)
    lowest = content_of(made)["lowest-classes"]["data"][0]
    assert lowest["text"] == classes[:30]
    pairs = table_of(made, "confused")
    assert len(pairs) == 20
    true, taken, rows = pairs[0]
    expected = ((truth == int(true[-2:])) & (predicted == int(taken[-2:]))).sum()
    assert int(rows) == expected == max(int(row[2]) for row in pairs)


def test_labels_that_end_together_are_pushed_apart():
    ends = [(f"p{i}", "#000000", 0.5) for i in range(6)] + [("top", "#000000", 1.0), ("bottom", "#000000", 0.0)]
    notes = drawing.end_labels(ends, [0.0, 1.0], 200, "y")
    heights = sorted(note["y"] * 200 + note["yshift"] for note in notes)
    assert min(np.diff(heights)) >= 12.9
    assert heights[0] >= 0
    assert heights[-1] <= 200
