"The plain fastai way of the first notebook, from random weights: what ours is timed beside."

from time import perf_counter

from fastai.callback.core import Callback
from fastai.vision.all import (
    CategoryBlock,
    DataBlock,
    ImageBlock,
    IndexSplitter,
    RandomResizedCrop,
    aug_transforms,
    error_rate,
    vision_learner,
)
from torchvision import models


class Clock(Callback):
    "When each epoch began and when it was done, validation included."

    def __init__(self):
        self.begun, self.done = [], []

    def before_epoch(self):
        self.begun.append(perf_counter())

    def after_epoch(self):
        self.done.append(perf_counter())


def fit(labels, valid, arch, size, bs, epochs):
    """Train on `labels`, photos with their labels of which the last `valid` validate.

    Returns the learner, how many photos it trains on in an epoch, and a `Clock`.
    """
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_y=labels.get,
        splitter=IndexSplitter(range(len(labels) - valid, len(labels))),
        item_tfms=RandomResizedCrop(size, min_scale=0.5),
        batch_tfms=aug_transforms(),
    )
    dls = block.dataloaders(list(labels), bs=bs)
    learn, clock = vision_learner(dls, getattr(models, arch), metrics=error_rate, pretrained=False), Clock()
    learn.unfreeze()
    with learn.no_bar(), learn.no_logging(), learn.added_cbs(clock):
        learn.fit_one_cycle(epochs, 1e-3)
    return learn, len(dls.train) * dls.train.bs, clock
