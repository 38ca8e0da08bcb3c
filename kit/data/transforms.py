"""The steps of an augmentation: albumentations, its compositions, own code; built, and tried out on noise."""

import os
import random
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from kit.core.errors import KitError
from kit.core.own_code import OwnCode
from kit.data.affine import affine
from kit.data.config import COMPOSITIONS, DataConfig

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or its import asks the network for a newer version
import albumentations as A

Step: TypeAlias = A.BasicTransform | A.BaseCompose

# What albumentations says of a transform that it runs as it is asked to.
ADVICE = ".*(special case of|specialized version of|alias for|deprecated|very slow)"  # a regular expression


class OwnTransform(A.ImageOnlyTransform):
    """A step of the user's own: a function of pixels and a source of random numbers, with probability p.

    Parameters
    ----------
    code : OwnCode
        Names it, for messages.
    function : callable
        `function(pixels, random)`, with uint8 [height, width, channels], which may be written to, and numpy's
        Generator.
    p : float
        The probability.
    place : str
        Its key in the config, for messages.
    """

    def __init__(self, code: OwnCode, function: Callable[..., np.ndarray], p: float, place: str):
        super().__init__(p=p)
        self.code, self.function, self.place = code, function, place

    def apply(self, img: np.ndarray, **_: Any) -> np.ndarray:
        """Return the pixels that the user's function makes of `img`."""
        pixels = img if img.flags.writeable else img.copy()
        try:
            made = self.code.call(self.function, pixels, self.random_generator)
        except KitError as error:
            raise KitError(f"{self.place}: {error}") from error
        if not isinstance(made, np.ndarray):
            found = type(made).__name__
            raise KitError(f"{self.place}: {self.code.reference} gives {found}; an array of pixels is needed")
        if made.dtype != np.uint8 or not (made.shape == img.shape or self.p == 1):
            _refuse(f"{self.place}: {self.code.reference}", made, img.shape)
        return made


def composed(steps: Sequence[Any], config: DataConfig) -> A.Compose | None:
    """Build the steps of `data.augment`, and the crop to the size that the network sees; None where neither is."""
    transforms = [build_step(step, f"data.augment[{place}]", config) for place, step in enumerate(steps)]
    if config.stored_size > config.size:  # a transform that cuts to `size` leaves nothing to crop
        crop = A.RandomCrop if steps else A.CenterCrop
        transforms.append(crop(config.size, config.size))
    return A.Compose(transforms) if transforms else None


def build_step(step: Any, place: str, config: DataConfig) -> Step:
    """Build one step of a list: a transform, or a composition of steps.

    Parameters
    ----------
    step : str or mapping
        A name, or a name and its parameters.
    place : str
        Its key in the config, for messages.
    config : DataConfig
        Knows where own code is.

    Raises
    ------
    KitError
        Where there is no such transform, or where it does not take the parameters.
    """
    name, arguments = _named(step, place)
    if name in COMPOSITIONS:
        return _composition(name, arguments, place, config)
    if own := config.own(name):
        return _own_transform(own, arguments, place)
    kind = affine() if name == "Affine" else getattr(A, name, None)
    if not (isinstance(kind, type) and issubclass(kind, A.BasicTransform)):
        raise KitError(f"{place}: {name!r} is no transform of albumentations {A.__version__}")
    return _made(kind, _tuples(arguments), f"{place}: {name}")


def _named(step: Any, place: str) -> tuple[str, dict[str, Any]]:
    """Return the name of a step and its parameters."""
    if isinstance(step, str):
        return step, {}
    if not isinstance(step, dict) or len(step) != 1:
        found = sorted(map(str, step)) if isinstance(step, dict) else repr(step)
        raise KitError(f"{place}: one transform an entry, like {{HorizontalFlip: {{p: 0.5}}}}; got {found}")
    ((name, arguments),) = step.items()
    if not isinstance(arguments or {}, dict):
        raise KitError(f"{place}.{name}: expected a mapping of parameters, like {{p: 0.5}}; got {arguments!r}")
    return str(name), arguments or {}


def _composition(name: str, arguments: dict[str, Any], place: str, config: DataConfig) -> Step:
    """Build a composition, and the steps in it."""
    options, p = dict(arguments), arguments.get("p", 1)
    steps, n = options.pop("transforms", None), options.get("n", 1)
    if not isinstance(steps, list) or not steps:
        raise KitError(f"{place}.{name}.transforms: expected a list of transforms; got {steps!r}")
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1:  # albumentations does not look
        raise KitError(f"{place}: {name}: p = {p!r}: expected a probability, 0 to 1")
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise KitError(f"{place}: {name}: n = {n!r}: expected how many of the transforms, 1 or more")
    inside = [
        build_step(step, f"{place}.{name}.transforms[{number}]", config) for number, step in enumerate(steps)
    ]
    if name == "OneOf" and not sum(each.p for each in inside):
        raise KitError(f"{place}: OneOf: each of its transforms has p: 0, so none can be drawn")
    return _made(getattr(A, name), {"transforms": inside} | options, f"{place}: {name}")


def _own_transform(own: OwnCode, options: dict[str, Any], place: str) -> Step:
    """Build a transform of the user's own: a class of albumentations' kind, or a function."""
    try:
        target = own.load()
        if isinstance(target, type) and issubclass(target, A.BasicTransform):
            own.check_signature(target, options, ())
            return _made(target, _tuples(options), f"{place}: {own.reference}")
        options = dict(options)
        p = options.pop("p", 1.0)
        if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1:
            raise KitError(f"{own.reference}: p = {p!r}: expected a probability, 0 to 1")
        return OwnTransform(own, own.bind(options, ("pixels", "random")), float(p), place)
    except KitError as error:
        text = str(error)
        raise error if text.startswith(place) else KitError(f"{place}: {text}") from error


def _made(kind: Callable[..., Step], arguments: dict[str, Any], what: str) -> Step:
    """Call a class of albumentations; KitError where it does not take the arguments as they are.

    Of an argument that it does not know, or changes, it only warns; a warning that another transform would be
    better is none of that.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", ADVICE, UserWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        try:
            return kind(**arguments)
        except (TypeError, ValueError, NotImplementedError, UserWarning) as error:
            raise KitError(f"{what}: {' '.join(str(error).split())[:200]}") from error


def _tuples(arguments: dict[str, Any]) -> dict[str, Any]:
    return {key: _tuple(value) for key, value in arguments.items()}


def _tuple(value: Any) -> Any:
    """Turn YAML's lists into the tuples that albumentations wants."""
    return tuple(_tuple(item) for item in value) if isinstance(value, list) else value


def try_out(steps: Sequence[Any], config: DataConfig) -> None:
    """Run every transform once on noise, so that a list that does not fit fails before the training.

    Raises
    ------
    KitError
        Names the place in the config, and what is wrong there.
    """
    side = config.stored_size
    noise = np.random.default_rng(0).integers(0, 256, (side, side, config.channels), dtype=np.uint8)
    for number, step in enumerate(steps):
        place = f"data.augment[{number}]"
        noise = _tried(build_step(step, place, config), noise, place, config)
    allowed = ((config.size, config.size, config.channels), (side, side, config.channels))
    if noise.shape not in allowed:
        _refuse("data.augment", noise, allowed[0])


def _tried(step: Step, before: np.ndarray, place: str, config: DataConfig, always: bool = False) -> np.ndarray:
    """Return what a step makes of pixels; KitError where training could not take it.

    `always`: it is applied whatever its p says, as where one of several is drawn.
    """
    always = always or step.p == 1
    if isinstance(step, A.BaseCompose):
        after = _tried_inside(step, before, f"{place}.{type(step).__name__}.transforms", config)
    else:
        after = _tried_alone(step, before, place, config)
    if after.dtype != np.uint8 or not (after.shape == before.shape or always):
        _refuse(place, after, before.shape)
    return after


def _tried_inside(step: A.BaseCompose, before: np.ndarray, place: str, config: DataConfig) -> np.ndarray:
    """Return what the steps of a composition make of pixels, each tried.

    Where only some are applied, or in any order, each has to keep the shape; where just one is, all have to give
    the same.
    """
    after, first = before, None
    for number, inner in enumerate(step.transforms):
        where = f"{place}[{number}]"
        if isinstance(step, A.Sequential):
            after = _tried(inner, after, where, config)
            continue
        one = isinstance(step, A.OneOf | A.OneOrOther)
        after = _tried(inner, before, where, config, always=one)
        first = after.shape if first is None and one else first or before.shape
        if after.shape != first:
            _refuse(where, after, first)
    return after


def _tried_alone(transform: A.BasicTransform, before: np.ndarray, place: str, config: DataConfig) -> np.ndarray:
    probability, transform.p = transform.p, 1.0
    try:
        after, again = _applied(transform, before), _applied(transform, before)
    except KitError:
        raise
    except Exception as error:  # transforms raise what they like on pixels they cannot take
        shape = " × ".join(map(str, before.shape))
        raise KitError(f"{place}: fails on a {shape} image: {_fault(error, config)}") from error
    finally:
        transform.p = probability
    if not isinstance(after, np.ndarray):
        _refuse(place, after, before.shape)
    if not np.array_equal(after, again):
        raise KitError(
            f"{place}: gives other pixels for the same random numbers, so that no training could be repeated; "
            "draw them from the generator that it is given"
        )
    return after


def _fault(error: Exception, config: DataConfig) -> str:
    """Say what went wrong, and, where it did in own code, in which file and line."""
    for _, name in config.references():
        if (own := config.own(name)) and own.raised(error):
            return f"{name}: {own.fault(error)}"
    return " ".join(str(error).split())[:200]


def _applied(transform: A.BasicTransform, pixels: np.ndarray) -> np.ndarray:
    transform.set_random_state(np.random.Generator(np.random.Philox(0)), random.Random(0))
    return transform(image=pixels.copy())["image"]


def _refuse(place: str, seen: Any, wanted: tuple[int, ...]) -> None:
    raise KitError(
        f"{place}: gives {seen.dtype} {tuple(seen.shape)}, but training needs uint8 {wanted}; leave out "
        "Normalize, ToTensorV2 and transforms that change the size"
    )
