"""What of a finished run's predictions is missing, damaged, or made in another way than the config asks for."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kit.core.runs import RunDir
from kit.data.images import ImageSet
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.pixels import test_pixels_digest
from kit.experiment.views import asked_views, gave_up, views_of

if TYPE_CHECKING:  # where nothing is predicted, torch is not waited for
    from kit.training.views import Views

VIEWS_GIVEN_UP = "views had been given up for want of time"


@dataclass(frozen=True)
class Due:
    """What of a run is to be predicted anew.

    Attributes
    ----------
    lost : list of Path
        Files that are missing or damaged.
    other : str
        Why what is there is of no use; "" where it is.
    views : Views
        In which it is predicted.
    whole : bool
        Whether held-out rows are predicted, too.
    """

    lost: list[Path]
    views: "Views"
    other: str = ""
    whole: bool = False

    def __bool__(self) -> bool:
        return bool(self.lost or self.other)


def due_of(run: RunDir, loaded: LoadedExperiment, test: ImageSet, with_test: bool, views: bool) -> Due:
    """Return what of a run is to be predicted anew; nothing of one that is not finished.

    Parameters
    ----------
    run : RunDir
        Of `loaded`; the files of its predictions are read.
    loaded : LoadedExperiment
    test : ImageSet
        The test images, as the config has them predicted.
    with_test : bool
        Whether test predictions have to be of the test set that is there now.
    views : bool
        Whether it is to be brought to the views of the config.
    """
    asked = asked_views(loaded.config)
    if not run.finished:
        return Due([], asked)
    lost = [path for path in (run.oof, run.test) if not run.is_whole(path)]
    other = _other_test(run, loaded, test) if with_test else ""
    then = views_of(run.record, loaded.config)
    if then == asked:
        return Due(lost, asked, other)
    # What is lost alone is to be as it was; of another size no images are at hand for that.
    anew = views or bool(other) or (bool(lost) and then.side != asked.side)
    if not anew:
        return Due(lost, then)
    reason = VIEWS_GIVEN_UP if gave_up(run.record, asked.form()) else f"was predicted as {then}, now {asked}"
    return Due(lost, asked, other or reason, whole=True)


def _other_test(run: RunDir, loaded: LoadedExperiment, test: ImageSet) -> str:
    """Say why the test predictions of a finished run are of no use now; "" where they are."""
    record = run.record
    if record.test != loaded.test_digest:
        return "the test set has changed"
    if record.test_pixels != test_pixels_digest(test):
        return "test images are read otherwise than when it was trained"
    # To pool rows one has to know which of them hold the prior alone; older kits did not note it.
    if record.unread is None and loaded.competition.test_observations is not None:
        return "which test images could be read was not noted"
    return ""
