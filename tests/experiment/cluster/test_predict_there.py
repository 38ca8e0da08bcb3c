"""What a node predicts of the test set, without a cluster."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from support.colours import experiment_content

from kit.core.runs import predictions
from kit.data.config import DataConfig
from kit.experiment.cluster import predict_there
from kit.experiment.cluster.site import Site
from kit.experiment.config import validate
from kit.experiment.predict_side_by_side import in_order


def test_a_node_whose_time_is_over_before_it_begins_has_predicted_nothing(tmp_path, monkeypatch):
    """As where its images took long to decode: the others' models count, and it is no error."""
    config = validate(experiment_content(tmp_path), "test")
    oof = predictions(["a", "b"], np.full((2, 3), 1 / 3, np.float32), ["blue", "green", "red"])
    run = SimpleNamespace(read_oof=lambda: oof, record=SimpleNamespace(predicted={"turns": ["hflip"]}, views=""))
    monkeypatch.setattr(predict_there, "config_there", lambda site: config)
    monkeypatch.setattr(predict_there, "_images", lambda *_: SimpleNamespace(rows=[0, 1, 2]))
    monkeypatch.setattr(predict_there, "_run", lambda model: nullcontext(run))
    site = Site(tmp_path, tmp_path, False, tmp_path, now=100.0)
    model = predict_there.Asked(4, Path("fold1"), {}, "", DataConfig(), 0, 90.0, 2)
    number, made, in_one_view = predict_there.predict_there(site, model)
    assert (number, len(made), list(made.columns), in_one_view) == (4, 0, ["blue", "green", "red"], False)
    assert in_order([(number, made, in_one_view)], 3) == []
