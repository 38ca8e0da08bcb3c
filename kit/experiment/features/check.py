"""What can be wrong with heads over features is found here, before any feature is computed."""

import torch

from kit.core.errors import KitError, Say, some
from kit.data.decode import try_decoder
from kit.experiment.features.parts import inner_parts
from kit.experiment.loaded import LoadedExperiment
from kit.model.build import Normalisation, build_model, normalisation
from kit.model.features import Taps, block_named
from kit.model.trial import forward_on_trial
from kit.training.device import process_state, resolve_precision

WEIGHING = ("sampler", "loss", "class_weights")  # of `training`: what makes rows or classes count unlike


def checked_body(loaded: LoadedExperiment, say: Say) -> Normalisation:
    """Build the body once, on the CPU, take features of noise, and return how pixels are normalised for it.

    Raises
    ------
    KitError
        For whatever cannot work.
    """
    config, competition = loaded.config, loaded.competition
    data, features = config.data, config.features
    assert features, "only to be asked of an experiment of heads"
    if told := [f"training.{key}" for key in WEIGHING if getattr(config.training, key) not in (None, "none")]:
        say(f"{some(told)}: for trainings alone; heads are fitted on each training row alike")
    if process_state(config.training).num_processes > 1:
        raise KitError("features: heads are fitted by one process; leave torchrun out")
    resolve_precision(config.training.precision, cpu=config.training.device == "cpu")
    if competition.label_format.multilabel is False and len(competition.classes) < 2:
        raise KitError("features: there is a single class, so there is nothing to tell apart")
    for fold in config.folds.chosen:
        inner_parts(loaded.folds, loaded.folds.training_rows(fold), competition.targets)
    model = build_model(config.model, len(competition.classes), data.channels, data.size, config.seeds[0])
    if config.model.weights == "none":
        say("model.weights: none: these are features of random weights, which tell little")
    names = list(dict.fromkeys(block_named(model, features.taken_of(head)) for head in features.heads))
    cannot = f"{config.model.name} gives no features of images of {data.size} px"
    with forward_on_trial(cannot, "data.size or the model"), torch.inference_mode():
        Taps(model.eval(), names)(torch.zeros(1, data.channels, data.size, data.size))
    try_decoder(data, competition.train_images[0])
    usual = normalisation(config.model.name, data.channels, model)
    return Normalisation(data.mean or usual.mean, data.std or usual.std)
