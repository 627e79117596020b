"""The contenders: ours, cleanlab's and PyOD's, each as its documentation would have it used.

All see the same encoded features (`Dataset.encoder`). ``python -m benchmarks.contenders NAME
FILE`` runs one in a process of its own, so that seconds and memory are its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.poison import Truth
from sanitizers.core.data import Dataset, Roles

#: What a contender would remove from the data, shape (n,).
Flags = NDArray[np.bool_]
#: Importing is not part of what is timed, so a contender first imports, then runs.
Contender = Callable[[], Callable[[Dataset], Flags]]

SEED = 0
FOLDS = 5


@dataclass(frozen=True)
class Outcome:
    """What a contender did on one poisoned table.

    Parameters
    ----------
    recall : float
        The share of the poisoned rows that it would remove.
    lost : float
        The share of the clean rows that it would remove.
    seconds : float
    peak_mb : float
        Peak resident memory of its process.
    """

    recall: float
    lost: float
    seconds: float
    peak_mb: float


def ours(*names: str) -> Contender:
    """Quarantine by the named sanitizers, or by all that have their roles; default policy."""

    def load() -> Callable[[Dataset], Flags]:
        from sanitizers.catalog import SANITIZERS, missing_roles, sanitizer
        from sanitizers.core.evidence import examine_batch
        from sanitizers.core.lines import ScoreSummary, draw
        from sanitizers.core.policy import Policy
        from sanitizers.core.verdicts import QUARANTINE, judge

        def run(data: Dataset) -> Flags:
            recipes = {name: sanitizer(name) for name in names or SANITIZERS}
            recipes = {n: r for n, r in recipes.items() if not missing_roles(r, data.roles)}
            policy, evidence, thresholds = Policy(), {}, {}
            for name, recipe in recipes.items():
                scorer = recipe.fit(data)
                parts = [(b.keys, examine_batch(name, scorer, b)) for b in data.batches()]
                summary = ScoreSummary(data.rows)
                for keys, part in parts:
                    score, p_value = (_floats(part.column(c)) for c in ("score", "p_value"))
                    summary.add(score, p_value, keys)
                evidence[name] = pa.concat_tables([p for _, p in parts], promote_options="default")
                thresholds[name] = draw(name, policy.rule(name, trusted=False), summary)
            trusted = np.zeros(data.rows, dtype=bool)
            verdicts = judge(evidence, thresholds, recipes, trusted)
            words = verdicts.column("verdict").cast(pa.string()).to_numpy(zero_copy_only=False)
            return np.asarray(words == QUARANTINE)

        return run

    return load


def find_label_issues() -> Callable[[Dataset], Flags]:
    """Cleanlab's ``find_label_issues`` on out-of-fold probabilities."""
    from cleanlab.filter import find_label_issues as find

    predict = _out_of_fold()

    def run(data: Dataset) -> Flags:
        _, codes, probabilities = predict(data)
        return np.asarray(find(codes, probabilities))

    return run


def datalab(*kinds: str) -> Contender:
    """Cleanlab's Datalab with features and out-of-fold probabilities.

    Parameters
    ----------
    *kinds : str
        The kinds of issue for which a row would be removed.
    """

    def load() -> Callable[[Dataset], Flags]:
        from cleanlab import Datalab

        predict = _out_of_fold()

        def run(data: Dataset) -> Flags:
            X, codes, probabilities = predict(data)
            lab = Datalab(data={"label": codes}, label_name="label", verbosity=0)
            lab.find_issues(features=X, pred_probs=probabilities)
            found = lab.get_issues()
            columns = [found[f"is_{kind}_issue"].to_numpy() for kind in kinds]
            return np.asarray(np.any(columns, axis=0))

        return run

    return load


def pyod(name: str) -> Contender:
    """Run a PyOD detector as it comes, with ``contamination=0.1``.

    Parameters
    ----------
    name : str
        The class, in the module of the same name in small letters.
    """

    def load() -> Callable[[Dataset], Flags]:
        from importlib import import_module

        detector = getattr(import_module(f"pyod.models.{name.lower()}"), name)

        def run(data: Dataset) -> Flags:
            (batch,) = data.batches()
            fitted = detector(contamination=0.1).fit(batch.X)
            return np.asarray(fitted.labels_ == 1)

        return run

    return load


CONTENDERS: Mapping[str, Contender] = {
    "labels alone": ours("labels"),
    "outliers alone": ours("outliers"),
    "micro-models alone": ours("micro-votes", "micro-concentration"),
    "all sanitizers": ours(),
    "cleanlab find_label_issues": find_label_issues,
    "cleanlab Datalab, labels": datalab("label"),
    "cleanlab Datalab, labels and outliers": datalab("label", "outlier"),
    "PyOD IForest, contamination=0.1": pyod("IForest"),
    "PyOD KNN, contamination=0.1": pyod("KNN"),
}


def measure(
    contender: str, frame: pd.DataFrame, truth: Truth, label: str, when: str | None = None
) -> Outcome:
    """Run a contender in a process of its own, and compare what it flags with the truth.

    Parameters
    ----------
    contender : str
        A key of `CONTENDERS`.
    frame : pandas.DataFrame
    truth : ndarray of bool, shape (n,)
    label : str
    when : str, optional
        The column of the time.
    """
    features = tuple(c for c in frame.columns if c not in (label, when))
    roles = Roles(label=label, time=when, features=features)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.parquet"
        table = pa.Table.from_pandas(frame, preserve_index=False)
        said = {"label": roles.label, "time": roles.time, "features": list(features)}
        pq.write_table(table.replace_schema_metadata({"roles": json.dumps(said)}), file)
        command = [sys.executable, "-m", "benchmarks.contenders", contender, str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{contender} failed:\n{done.stderr[-3000:]}")
        measured = json.loads(done.stdout.splitlines()[-1])
        flags = np.load(file.with_suffix(".npy"), allow_pickle=False)
    return Outcome(
        recall=float(flags[truth].mean()),
        lost=float(flags[~truth].mean()),
        seconds=measured["seconds"],
        peak_mb=measured["peak_mb"],
    )


def _out_of_fold() -> Callable[
    [Dataset], tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float64]]
]:
    """Load what gives cleanlab its probabilities: extra trees, five folds."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    def predict(
        data: Dataset,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float64]]:
        (batch,) = data.batches()
        _, codes = np.unique(batch.labels.astype(str), return_inverse=True)
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
        model = ExtraTreesClassifier(random_state=SEED, n_jobs=-1)
        probabilities = cross_val_predict(model, batch.X, codes, cv=folds, method="predict_proba")
        return batch.X, codes, probabilities

    return predict


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.asarray(column.to_numpy(), dtype=np.float64)


def main() -> None:
    """Run one contender on a file that `measure` wrote."""
    parser = argparse.ArgumentParser(description="run one contender on a table")
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("file", type=Path)
    given = parser.parse_args()
    table = pq.read_table(given.file)
    said = json.loads(table.schema.metadata[b"roles"])
    roles = Roles(label=said["label"], time=said["time"], features=tuple(said["features"]))
    data = Dataset.from_table(table.replace_schema_metadata(None), roles)
    run = CONTENDERS[given.contender]()
    started = time.perf_counter()
    flags = run(data)
    seconds = time.perf_counter() - started
    np.save(given.file.with_suffix(".npy"), flags, allow_pickle=False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "peak_mb": peak / _PEAK_PER_MB}))


#: macOS counts bytes, the others kilobytes.
_PEAK_PER_MB = 2**20 if sys.platform == "darwin" else 2**10

if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
