"""Observations: rows of several images that get one prediction (competition.predict_by)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from kit.competition.config import CompetitionConfig
from kit.competition.spelling import plain
from kit.competition.templates import fields_of, filled
from kit.core.errors import KitError, some
from kit.scoring.pooling import Pool, pool_rows

KEY = "competition.predict_by"


@dataclass(frozen=True)
class Observations:
    """Which rows make up one prediction, and how theirs are pooled.

    Attributes
    ----------
    ids
        Of the rows.
    of
        The observation of each row.
    pool
        mean, max or noisy-or.
    exclusive
        Whether a row has one label.
    """

    ids: list[str]
    of: list[str]
    pool: Pool
    exclusive: bool

    @cached_property
    def codes(self) -> np.ndarray:
        """The number of each row's observation, int64 [rows], as they first appear."""
        return pd.factorize(np.array(self.of, dtype=object))[0].astype(np.int64)

    @property
    def names(self) -> list[str]:
        """The observations, as they first appear."""
        return list(dict.fromkeys(self.of))

    @cached_property
    def _row_of(self) -> pd.Index:
        return pd.Index(self.ids)

    def rows(self, ids: pd.Index) -> np.ndarray:
        """Return the row of each id, int64; KitError where one is not among them."""
        rows = self._row_of.get_indexer(ids)
        if (odd := ids[rows < 0]).size:
            raise KitError(f"{KEY}: predictions of rows that no observation has ({some(odd, 5)}); predict anew")
        return rows

    def pooled(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the predictions of observations from those of their rows.

        Parameters
        ----------
        frame : DataFrame
            A row each, indexed by id, a column a class.

        Returns
        -------
        DataFrame
            float64, indexed by observation as they first appear, of those with a row in `frame`.
        """
        names = np.array(self.of, dtype=object)[self.rows(frame.index)]
        codes, observations = pd.factorize(names)
        values = pool_rows(frame.to_numpy(), codes, self.pool, self.exclusive)
        return pd.DataFrame(values, columns=frame.columns, index=pd.Index(observations, name="id"))


def observations_of(table: pd.DataFrame, config: CompetitionConfig, where: str) -> Observations | None:
    """Return the observations in a table; None where each row is predicted for itself.

    Parameters
    ----------
    table : DataFrame
        Every cell as text.
    config : CompetitionConfig
        Names the columns that tell the observation.
    where : str
        The table, for messages.

    Raises
    ------
    KitError
        Where a column is not there or empty in a row, and where different columns give one text.
    """
    if config.predict_by is None:
        return None
    column, template = config.predict_by.column, config.predict_by.rows
    ids = table[config.id_column].tolist()
    if column:
        if column not in table.columns:
            raise KitError(f"{KEY}: {where} has no column {column!r}; it has {some(table.columns)}")
        fields, plain, texts = [column], True, table[column].tolist()
    else:
        (fields, plain), texts = fields_of(template), filled(template, table, f"{KEY}: {where}")
    for name in fields:
        if empty := [row for row, cell in zip(ids, table[name], strict=True) if not cell.strip()]:
            raise KitError(
                f"{KEY}: {where}: column {name!r} is empty in {len(empty)} of {len(ids)} rows "
                f"(id {some(empty, 5)}); fill them in"
            )
    if plain and len(fields) > 1:  # 1 and 23, 12 and 3
        apart = table[fields].assign(**{"": texts}).drop_duplicates()
        if len(odd := apart[apart[""].duplicated()]):
            raise KitError(
                f"{KEY}: {template!r} makes one text of different cells, like {odd[''].iloc[0]!r}; put something "
                "between its columns"
            )
    _need_apart(dict.fromkeys(texts), where)
    return Observations(ids, texts, config.predict_by.pool, exclusive=not config.multilabel)


def _need_apart(names: Iterable[str], where: str) -> None:
    """Fail where two observations are one but for what cannot be seen."""
    meant: dict[str, list[str]] = {}
    for name in names:
        meant.setdefault(plain(name), []).append(name)
    if odd := [each for each in meant.values() if len(each) > 1]:
        told = [" and ".join(map(ascii, each)) for each in odd]
        raise KitError(
            f"{KEY}: {where}: observations differ in odd spaces or Unicode form alone ({some(told, 5)}); make "
            "them one"
        )


def need_one_label(observations: Observations, targets: np.ndarray, decode: Sequence[str]) -> None:
    """Fail where rows of one observation have different labels.

    Parameters
    ----------
    observations : Observations
        Of the training rows.
    targets : ndarray
        Class indices [rows], or bool [rows, classes].
    decode : sequence of str
        The labels of each row as text, for the message.
    """
    codes = observations.codes
    first = np.unique(codes, return_index=True)[1][codes]
    differ = targets != targets[first]
    rows = np.flatnonzero(differ.any(axis=1) if differ.ndim == 2 else differ)
    if not len(rows):
        return
    odd = list(dict.fromkeys(observations.of[row] for row in rows))
    row = rows[0]
    raise KitError(
        f"{KEY}: {len(odd)} of {len(observations.names)} observations have rows with different labels "
        f"({some(odd, 5)}; row {observations.ids[first[row]]} of {odd[0]} has {decode[first[row]]!r}, row "
        f"{observations.ids[row]} {decode[row]!r}); one prediction needs one label: mend them, or predict by "
        "something finer"
    )


def gets_the_prior(pooled: bool) -> str:
    """Say what is predicted where test images cannot be read; `pooled`: rows of an observation are."""
    if not pooled:
        return "their rows get the prior"
    return "their observations are predicted by the other images, those without one get the prior"
