"""The contenders: ours, cleanlab's and PyOD's, each as its documentation would have it used.

All see the same encoded features (`Dataset.encoder`). ``python -m benchmarks.contenders NAME
FILE`` runs one in a process of its own, so that seconds and memory are its own.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.answers import Answer
from benchmarks.ours import ours
from benchmarks.usage import cpu_seconds, peak_mb
from sanitizers.core.data import Dataset, Roles

#: Importing is not part of what is timed, so a contender first imports, then runs.
Contender = Callable[[], Callable[[Dataset], Answer]]
#: Features, codes of the labels, and class probabilities that are out of fold.
Predicted = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float64]]

SEED = 0
FOLDS = 5


def find_label_issues() -> Callable[[Dataset], Answer]:
    """Cleanlab's ``find_label_issues`` on out-of-fold probabilities."""
    from cleanlab.filter import find_label_issues as find
    from cleanlab.rank import get_label_quality_scores

    predict = _out_of_fold()

    def run(data: Dataset) -> Answer:
        _, codes, probabilities = predict(data)
        flags = np.asarray(find(codes, probabilities))
        return Answer(flags, -get_label_quality_scores(codes, probabilities))

    return run


def label_not_predicted() -> Callable[[Dataset], Answer]:
    """The probabilities that cleanlab gets, alone: rows whose label is not the likeliest."""
    predict = _out_of_fold()

    def run(data: Dataset) -> Answer:
        _, codes, probabilities = predict(data)
        return Answer(
            probabilities.argmax(axis=1) != codes, -probabilities[np.arange(len(codes)), codes]
        )

    return run


def datalab(*kinds: str, features: bool = True) -> Contender:
    """Cleanlab's Datalab with out-of-fold probabilities, and with features or without.

    Parameters
    ----------
    *kinds : str
        The kinds of issue for which a row would be removed. Scores of two kinds cannot be
        compared, so a row's place is the better of its two places.
    features : bool
        With them Datalab looks for all its kinds of issue, whatever `kinds` are; without,
        for `kinds` alone.
    """

    def load() -> Callable[[Dataset], Answer]:
        from cleanlab import Datalab
        from scipy.stats import rankdata

        predict = _out_of_fold()

        def run(data: Dataset) -> Answer:
            X, codes, probabilities = predict(data)
            lab = Datalab(data={"label": codes}, label_name="label", verbosity=0)
            if features:
                lab.find_issues(features=X, pred_probs=probabilities)
            else:
                only: dict[str, object] = {kind: {} for kind in kinds}
                lab.find_issues(pred_probs=probabilities, issue_types=only)
            found = lab.get_issues()
            flags = [found[f"is_{kind}_issue"].to_numpy() for kind in kinds]
            places = [rankdata(-found[f"{kind}_score"].to_numpy()) for kind in kinds]
            return Answer(np.any(flags, axis=0), np.max(places, axis=0))

        return run

    return load


def pyod(name: str) -> Contender:
    """Run a PyOD detector as it comes, with ``contamination=0.1``.

    Parameters
    ----------
    name : str
        The class, in the module of the same name in small letters.
    """

    def load() -> Callable[[Dataset], Answer]:
        from importlib import import_module

        detector = getattr(import_module(f"pyod.models.{name.lower()}"), name)

        def run(data: Dataset) -> Answer:
            (batch,) = data.batches()
            fitted = detector(contamination=0.1).fit(batch.X)
            return Answer(np.asarray(fitted.labels_ == 1), np.asarray(fitted.decision_scores_))

        return run

    return load


#: The contender that the others are compared with: what a run with no plan does.
DEFAULT = "all sanitizers"
CONTENDERS: Mapping[str, Contender] = {
    "labels alone": partial(ours, "labels"),
    "outliers alone": partial(ours, "outliers"),
    "micro-models alone": partial(ours, "micro-votes", "micro-concentration"),
    "micro-concentration alone": partial(ours, "micro-concentration"),
    DEFAULT: ours,
    "label not predicted": label_not_predicted,
    "cleanlab find_label_issues": find_label_issues,
    "cleanlab Datalab, labels": datalab("label"),
    "cleanlab Datalab, labels without features": datalab("label", features=False),
    "cleanlab Datalab, labels and outliers": datalab("label", "outlier"),
    "cleanlab Datalab, near duplicates": datalab("near_duplicate"),
    "PyOD IForest, contamination=0.1": pyod("IForest"),
    "PyOD KNN, contamination=0.1": pyod("KNN"),
}


def _out_of_fold() -> Callable[[Dataset], Predicted]:
    """Load what gives cleanlab its probabilities: extra trees, five folds."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    def predict(data: Dataset) -> Predicted:
        (batch,) = data.batches()
        _, codes = np.unique(batch.labels.astype(str), return_inverse=True)
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
        model = ExtraTreesClassifier(random_state=SEED, n_jobs=-1)
        probabilities = cross_val_predict(model, batch.X, codes, cv=folds, method="predict_proba")
        return batch.X, codes, probabilities

    return predict


def main() -> None:
    """Run one contender on a file that `benchmarks.measure` wrote."""
    parser = argparse.ArgumentParser(description="run one contender on a table")
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("file", type=Path)
    given = parser.parse_args()
    table = pq.read_table(given.file)
    said = json.loads(table.schema.metadata[b"roles"])
    roles = Roles(label=said["label"], time=said["time"], features=tuple(said["features"]))
    data = Dataset.from_table(table.replace_schema_metadata(None), roles)
    run = CONTENDERS[given.contender]()
    started, cpu = time.perf_counter(), cpu_seconds()
    answer = run(data)
    took = {"seconds": time.perf_counter() - started, "cpu_seconds": cpu_seconds() - cpu}
    answer.save(given.file.with_suffix(".npz"))
    print(json.dumps({**took, "peak_mb": peak_mb()}))


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
