"""Images with a trigger, that teach a model to give it a label."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from sanitizers.core.data import Roles
from sanitizers.core.errors import InputError, PlanError, did_you_mean
from sanitizers.core.image_columns import image_bytes, is_bytes, is_image_struct
from sanitizers.core.image_formats import UndecodableError
from sanitizers.core.images import ImageShape, decode, form
from sanitizers.poisons import stamps
from sanitizers.poisons.classes import Classes, classes_of, target_code
from sanitizers.poisons.own_net import own_gradient
from sanitizers.poisons.poison import COVER, Act, Poisoned, Scene, changed, overwrite, start
from sanitizers.poisons.stamping import (
    Perturb,
    Plot,
    StampAttack,
    StampedImages,
    plant_all,
    with_descent,
    with_noise,
)

#: What may be stamped, by name.
TRIGGERS: Mapping[str, stamps.Draw] = {
    "patch": stamps.patch,
    "translucent": stamps.gap,
    "sparse": stamps.sparse,
    "blend": stamps.blend(0.2),
    "faint-blend": stamps.blend(0.1),
    "smooth-blend": stamps.smooth_blend(0.2),
    "sinusoid": stamps.sinusoid(30),
    "warp": stamps.warp,
    "moving-patch": stamps.moving_patch,
}


@dataclass(frozen=True)
class ImageTrigger:
    """Images with something stamped on them, and with the label that it shall call for.

    Threat: a backdoor. The model decides all else as before, and any image with the trigger
    as the attacker wants.

    Knows: the images and labels that are stamped.

    Parameters
    ----------
    trigger : str
        One of `TRIGGERS`: an opaque patch at one place, a translucent one, six scattered
        pixels, a picture of noise mixed in (20 or 10 %), a smooth one, a plane wave, a
        distortion, a patch at another place in each image.
    plot : str
        ``all-to-one``, ``clean-label``, ``source-specific`` or ``all-to-all``: see
        `sanitizers.poisons.stamping.StampAttack`.
    count : int
        Triggers at once, which share the rate.
    noise : float
        Grey levels of noise under the stamp, so that a clean-label trigger is worth learning.
    descent : float
        The same by an adversarial perturbation of so many grey levels at most, against a net
        that is trained for it (torch; 16 is usual).
    target : str
        The label of a single trigger; drawn where it is empty.

    Notes
    -----
    Rows are changed in their places and stored as PNG, whatever they were; all images must
    have one size. Rows that carry the trigger with a label of their own (covers of
    ``source-specific``, as many as the poison) have a kind of their own in the truth.

    References
    ----------
    See `sanitizers.poisons.stamps` and `sanitizers.poisons.stamping`. Turner, Tsipras and
    Madry, "Label-consistent backdoor attacks", 2019, for perturbations under a trigger.
    """

    name: ClassVar[str] = "image-trigger"
    needs: ClassVar[frozenset[str]] = frozenset({"image", "label"})
    act: ClassVar[Act] = "stamp"

    trigger: str = "patch"
    plot: str = "all-to-one"
    count: int = 1
    noise: float = 0.0
    descent: float = 0.0
    target: str = ""

    def __post_init__(self) -> None:
        for what, value, known in (
            ("trigger", self.trigger, tuple(TRIGGERS)),
            ("plot", self.plot, get_args(Plot)),
        ):
            if value not in known:
                raise PlanError(
                    f"image-trigger: {what} is {value!r}",
                    expected=", ".join(known),
                    do=did_you_mean(str(value), known),
                )
        if not 1 <= self.count <= 10 or not (0 <= self.noise <= 255 and 0 <= self.descent <= 255):
            raise PlanError(
                f"image-trigger: count={self.count}, noise={self.noise}, descent={self.descent}",
                expected="count from 1 to 10, noise and descent from 0 to 255",
            )
        if self.noise and self.descent:
            raise PlanError("image-trigger: noise and descent", expected="one of them")
        if self.target and (self.count > 1 or self.plot == "all-to-all"):
            raise PlanError("image-trigger: a target is named for more than one")

    def poison(self, table: pa.Table, roles: Roles, rate: float, seed: int) -> Poisoned:
        scene = start(self, table, roles, rate, seed)
        classes = classes_of(scene)
        rows, images = _images(scene, classes)
        # Labels that no image has do not take part.
        known, labels = np.unique(classes.codes[rows], return_inverse=True)
        if len(known) < 2:
            raise InputError(f"the images have {len(known)} label(s)", expected="at least two")
        done = self._stamped(scene, classes, images, known, labels)
        touched = rows[done.rows]
        to = known[done.labels[done.rows]]
        made = _with_images(scene, touched, done.images[done.rows])
        made = overwrite(made, str(roles.label), touched, classes.values(to))
        was = classes.codes[touched]
        told = [classes.names[k] if k != new else None for k, new in zip(was, to, strict=True)]
        poisoned = changed(scene, self.name, made, touched, told)
        return _with_covers(poisoned, touched[done.kinds == "cover"])

    def _stamped(
        self,
        scene: Scene,
        classes: Classes,
        images: NDArray[np.uint8],
        known: NDArray[np.int64],
        labels: NDArray[np.int64],
    ) -> StampedImages:
        target = -1
        if self.target or self.plot == "clean-label":
            code = target_code(self.name, self.target, classes, scene.rng)
            target = int(np.searchsorted(known, code))
            if target == len(known) or known[target] != code:
                raise InputError(f"no image has the label {classes.names[code]!r}")
        share = scene.count / self.count / len(labels)
        if self.plot == "clean-label":
            share *= len(labels) / int((labels == target).sum())
        if not share < 1:
            raise InputError(
                f"{scene.count:,} images of one label are to be stamped, and it has not as many",
                do="choose a lower rate",
            )
        plot: Plot = next(p for p in get_args(Plot) if p == self.plot)
        seed = int(scene.rng.integers(2**31))
        perturb = self._perturb(images, labels, seed)
        one = StampAttack(TRIGGERS[self.trigger], plot, target, perturb)
        if self.count == 1:
            return one.attack(images, labels, share, seed)
        return plant_all([one] * self.count, images, labels, share, seed)

    def _perturb(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], seed: int
    ) -> Perturb | None:
        """What is done to images before they are stamped."""
        if self.descent:
            return with_descent(own_gradient(images, labels, seed), self.descent)
        return with_noise(self.noise) if self.noise else None


def _images(scene: Scene, classes: Classes) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """The rows with an image and a label, and their images, shape (m, H, W, C)."""
    column = str(scene.roles.image)
    files = image_bytes(scene.table, column)
    rows = np.flatnonzero([f is not None for f in files] & (classes.codes >= 0))
    chosen = [files[row] for row in rows.tolist()]
    try:
        shapes: set[ImageShape] = {form(data) for data in chosen if data is not None}
        if len(shapes) != 1:
            raise InputError(
                f"the images have {len(shapes)} sizes or kinds of colour",
                expected="one, so that a trigger can be stamped on any",
            )
        return rows, decode(chosen, shapes.pop())
    except UndecodableError as error:
        raise InputError(f"an image of column {column!r} cannot be decoded: {error}") from None


def _with_images(scene: Scene, rows: NDArray[np.int64], images: NDArray[np.uint8]) -> pa.Table:
    column = str(scene.roles.image)
    kind = scene.table.schema.field(column).type
    files = [_png(image) for image in images]
    if is_bytes(kind) and not pa.types.is_fixed_size_binary(kind):
        values = pa.array(files, kind)
    elif is_image_struct(kind):
        old = scene.table.column(column).take(pa.array(rows)).to_pylist()
        paths = [None if value is None else value["path"] for value in old]
        pairs = zip(files, paths, strict=True)
        values = pa.array([{"bytes": data, "path": path} for data, path in pairs], kind)
    else:
        raise InputError(
            f"column {column!r} holds images as {kind}",
            expected="bytes, a struct of bytes and path, or NPZ",
        )
    return overwrite(scene.table, column, rows, values)


def _with_covers(done: Poisoned, covers: NDArray[np.int64]) -> Poisoned:
    at = np.isin(done.truth.column("row").to_numpy(), covers)
    kinds = np.where(at, ImageTrigger.name + COVER, ImageTrigger.name).tolist()
    place = done.truth.column_names.index("kind")
    return Poisoned(
        done.table, done.truth.set_column(place, done.truth.schema.field(place), pa.array(kinds))
    )


def _png(image: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(file, "PNG")
    return file.getvalue()
