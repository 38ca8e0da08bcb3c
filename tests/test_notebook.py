"""The kit in a notebook: a real kernel runs the cells, and what each shows is looked at."""

import base64
import re

import nbformat
import pandas as pd
import pytest
import yaml
from nbclient import NotebookClient
from support.colours import experiment_content
from support.commands import ROOT

POLICIES = {"uniform": {"lr": 1e-2, "groups": "stage"}, "cosine": {"lr": 1e-3, "schedule": "cosine"}}
CELLS = {
    "run": "result = kit.run(experiment, 'out')",
    "result": "result",
    "compare": "kit.compare(experiment, 'out', stored=True)",
    "blend": "kit.blend(['tiny', 'tiny/cosine'], 'out', 'both')",
    "grade": "kit.grade(result.policies['uniform'].submission, SOLUTION, experiment)",
    "audit": "kit.audit(experiment, 'out')",
    "preview": "kit.preview(experiment)",
    "plot": (
        "import timm\n"
        "from kit.lr import policy\n"
        "policy(lr='slice(1e-5, 1e-2)', schedule='one_cycle').plot(timm.create_model('test_resnet'), 20)"
    ),
}


@pytest.fixture(scope="module")
def shown(competition, tmp_path_factory):
    """Cell → what it showed, a mapping from kinds to contents each."""
    folder = tmp_path_factory.mktemp("notebook")
    content = experiment_content(
        competition, folds={"run": [0]}, training={"epochs": 1}, policies=POLICIES, name="tiny"
    )
    (folder / "tiny.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    start = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import kit\n"
        f"SOLUTION = {str(competition / 'solution.csv')!r}\n"
        "experiment = kit.load_experiment('tiny.yaml')"
    )
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(code) for code in (start, *CELLS.values())]
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    return dict(zip(CELLS, (cell.outputs for cell in notebook.cells[1:]), strict=True))


def table_in(outputs) -> pd.DataFrame:
    """The first table that a cell showed; it shows one result and nothing else."""
    (html,) = (each.data["text/html"] for each in outputs if each.output_type == "execute_result")
    table = html[html.index("<table") : html.index("</table>")]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr.*?</tr>", table, re.DOTALL)]
    return pd.DataFrame(rows[1:], columns=rows[0])


def test_run_shows_its_progress_in_one_output_each(shown):
    bars = [each for each in shown["run"] if "<progress" in each.get("data", {}).get("text/html", "")]
    lines = [each.data["text/plain"] for each in bars]
    runs = [line for line in lines if " seed 0 fold " in line]
    assert [line.partition(":")[0] for line in runs] == [f"{policy} seed 0 fold 0" for policy in POLICIES]
    assert all(re.search(r": step 3/3, \d+\.\d s, loss \d\.\d{3}$", line) for line in runs)
    assert '<progress value="3" max="3"></progress>' in bars[-1].data["text/html"]
    assert not [each for each in shown["run"] if each.output_type == "error"]


def test_a_result_shows_itself_as_a_table(shown):
    table = table_in(shown["result"])
    assert list(table["policy"]) == ["uniform", "cosine"]
    assert list(table["runs"]) == ["1", "1"]
    assert list(table["rows"]) == ["12", "12"]
    assert all(0 <= float(score) <= 1 for score in table["macro F1"])


def test_what_other_commands_give_shows_itself_too(shown):
    compared = table_in(shown["compare"])
    assert list(compared["policy"]) == ["uniform", "cosine"]
    assert compared["verdict"][0] == "baseline"
    scores = table_in(shown["result"])["macro F1"]
    assert [float(each) for each in compared["pooled"]] == pytest.approx([float(each) for each in scores])
    members = table_in(shown["blend"])
    assert list(members["member"]) == ["tiny", "tiny/cosine"]
    assert sum(float(weight) for weight in members["weight"]) == pytest.approx(1)
    graded = table_in(shown["grade"])
    assert graded.drop(columns="value").to_numpy().tolist() == [["macro F1", "9"]]
    assert list(table_in(shown["audit"])["part"]) == ["train", "test"]
    (html,) = (each.data["text/html"] for each in shown["audit"] if each.output_type == "execute_result")
    assert "What to do" in html


@pytest.mark.parametrize("cell", ["plot", "preview"])
def test_a_policy_shows_itself_as_a_picture(shown, cell):
    (png,) = (each.data["image/png"] for each in shown[cell] if each.output_type == "execute_result")
    assert base64.b64decode(png).startswith(b"\x89PNG")
