"A training step that computes the same with less: gradients of any convolution and norm, and what is left behind."

import pickle
from contextlib import ExitStack

import pytest
import timm
import torch
import torchvision
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from timm.layers import Conv2dSame
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from cloud_classifier.training.callbacks import (
    FoldedNorms,
    FP32DepthwiseGrad,
    frozen_norms,
    norm_pairs,
    training_precision,
)

BF16 = torch.autocast('cpu', torch.bfloat16)
BACKWARD = torch.ops.aten.convolution_backward.default


def grads(net, x, *modes):
    "What comes out, and the gradient of the input and of each parameter that has one."
    x = x.clone().requires_grad_()
    net.zero_grad()
    with ExitStack() as stack:
        for mode in modes:
            stack.enter_context(mode)
        out = net(x)
    out.float().sin().mean().backward() if out.dtype == torch.bfloat16 else out.sin().mean().backward()
    return out.detach(), {'x': x.grad} | {k: p.grad.clone() for k, p in net.named_parameters() if p.grad is not None}


def error(found, exact):
    return ((found - exact).norm() / exact.norm()).item()


CONVOLUTIONS = {
    '3': dict(kernel_size=3, padding=1),
    '5, strides of 2': dict(kernel_size=5, stride=2, padding=2),
    '7, no bias': dict(kernel_size=7, padding=3, bias=False),
    '1': dict(kernel_size=1),
    'oblong': dict(kernel_size=(3, 5), stride=(2, 1), padding=(0, 2)),
    'dilated': dict(kernel_size=3, padding=2, dilation=2),
    'multiplied': dict(kernel_size=3, out_channels=24),
    'same': dict(kernel_size=3, padding='same'),
    'valid': dict(kernel_size=3, padding='valid'),
    'TensorFlow, even': dict(kind=Conv2dSame, kernel_size=3, stride=2, size=16),
    'TensorFlow, odd': dict(kind=Conv2dSame, kernel_size=5, stride=2, size=15, bias=False),
}


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last], ids=['contiguous', 'channels last'])
@pytest.mark.parametrize('how', CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_depthwise_convolutions_have_better_gradients_than_in_bfloat16(how, layout):
    torch.manual_seed(0)
    how = dict(kind=nn.Conv2d, out_channels=12, size=17) | how
    kind, size = how.pop('kind'), how.pop('size')
    conv, x = (
        kind(12, groups=12, **how).to(memory_format=layout),
        torch.randn(3, 12, size, size).to(memory_format=layout),
    )
    _, exact = grads(conv, x)
    (low, plain), (mixed, found) = grads(conv, x, BF16), grads(conv, x, BF16, FP32DepthwiseGrad())
    assert torch.equal(low, mixed)
    assert found.keys() == exact.keys()
    for k in exact:
        assert found[k].dtype == torch.float32
        assert error(found[k], exact[k]) <= min(0.02, 1.1 * error(plain[k], exact[k])), k


def test_calls_without_a_layer_are_convolutions_too():
    x, weight = torch.randn(2, 6, 9, 9), torch.randn(6, 1, 3, 3)
    with BF16:
        plain = [torch.conv2d(x, weight, groups=6), torch.conv2d(x[0], weight, None, (1,), (1,), 1, 6)]
        with FP32DepthwiseGrad():
            ours = [torch.conv2d(x, weight, groups=6), torch.conv2d(x[0], weight, None, (1,), (1,), 1, 6)]
    assert all(map(torch.equal, plain, ours))


class Backward(TorchDispatchMode):
    "Notes in what type gradients of convolutions are computed, and of what: input, weight, bias."

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is BACKWARD:
            self.calls.append((args[0].dtype, tuple(args[10])))
        return func(*args, **kwargs or {})


def calls_of(conv, x, *modes):
    with ExitStack() as stack:
        for mode in modes:
            stack.enter_context(mode)
        out = conv(x)
    with Backward() as watch:
        out.float().mean().backward()
    return watch.calls


@pytest.mark.parametrize(
    'wanted', [(True, True, True), (True, False, False), (False, True, False), (False, True, True)]
)
def test_gradients_that_nobody_needs_are_not_computed(wanted):
    conv, x = nn.Conv2d(8, 8, 3, groups=8), torch.randn(2, 8, 9, 9, requires_grad=wanted[0])
    conv.weight.requires_grad, conv.bias.requires_grad = wanted[1:]
    assert calls_of(conv, x, BF16, FP32DepthwiseGrad()) == [(torch.float32, wanted)]


@pytest.mark.parametrize('groups', [1, 2])
def test_other_convolutions_are_left_alone(groups):
    conv, x = nn.Conv2d(8, 8, 3, groups=groups), torch.randn(2, 8, 9, 9, requires_grad=True)
    assert calls_of(conv, x, BF16, FP32DepthwiseGrad()) == calls_of(conv, x, BF16)
    assert calls_of(conv, x, BF16)[0][0] == torch.bfloat16


def test_in_fp32_nothing_changes():
    conv, x = nn.Conv2d(8, 8, 3, groups=8), torch.randn(2, 8, 9, 9)
    for plain, ours in zip(grads(conv, x)[1].values(), grads(conv, x, FP32DepthwiseGrad())[1].values(), strict=True):
        assert torch.equal(plain, ours)


def with_statistics(net):
    "The network as if it were trained: no norm does nothing."
    for m in net.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None:
            m.running_mean.uniform_(-0.5, 0.5)
            m.running_var.uniform_(0.5, 2)
            if m.affine:
                nn.init.uniform_(m.weight, 0.5, 2)
                nn.init.uniform_(m.bias, -0.5, 0.5)
    return net


def after(net, *layers):
    return nn.Sequential(net, *layers, nn.Conv2d(4, 2, 1))


NETS = {
    'test_efficientnet': (lambda: timm.create_model('test_efficientnet'), None),
    'lite0': (lambda: timm.create_model('tf_efficientnet_lite0'), 49),
    'resnet18': (lambda: torchvision.models.resnet18(), 20),
    'mobilenet_v3_small': (lambda: torchvision.models.mobilenet_v3_small(), 34),
    'regnet': (lambda: timm.create_model('regnety_002'), None),
    'densenet': (lambda: torchvision.models.DenseNet(8, (2, 2), 8), None),
    'norms first': (lambda: timm.create_model('resnetv2_18', norm_layer='batchnorm2d'), None),
    'no norms': (lambda: timm.create_model('test_convnext'), 0),
    'plain norm': (lambda: after(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)), 1),
    'no statistics': (lambda: after(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)), 0),
    'no bias': (lambda: after(nn.Conv2d(3, 4, 3, 2, bias=False), nn.BatchNorm2d(4, eps=0.1)), 1),
    'dropout between': (lambda: after(nn.Conv2d(3, 4, 3), nn.Dropout(0.5), nn.BatchNorm2d(4)), 0),
    'changed in place': (lambda: after(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(4)), 0),
}


@pytest.mark.parametrize(('make', 'count'), NETS.values(), ids=NETS)
def test_folded_norms_are_the_norms(make, count):
    "What comes out, and each gradient, in 64 bits."
    torch.manual_seed(0)
    net, x = with_statistics(make()).double().eval(), torch.randn(2, 3, 64, 64, dtype=torch.float64)
    pairs = norm_pairs(net, x[:1])
    if count is not None:
        assert len(pairs) == count
    (plain, exact), (folded, found) = grads(net, x), grads(net, x, FoldedNorms(pairs))
    assert torch.allclose(plain, folded, rtol=1e-9, atol=1e-12)
    assert found.keys() == exact.keys()
    for k in exact:
        assert torch.allclose(found[k], exact[k], rtol=1e-7, atol=1e-9 * exact[k].abs().max().item()), k


class Shared(nn.Module):
    "One convolution, called twice."

    def __init__(self):
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.two(self.conv(self.one(self.conv(x))))


class Around(Shared):
    "A shortcut around the norm."

    def forward(self, x):
        x = self.conv(x)
        return x + self.one(x)


class Shown(Shared):
    "What the convolution makes is seen from outside."

    def forward(self, x):
        x = self.conv(x)
        return x, self.one(x)


@pytest.mark.parametrize('kind', [Shared, Around, Shown])
def test_a_norm_that_is_not_all_that_reads_a_convolution_is_not_folded(kind):
    net = kind()
    assert norm_pairs(net, torch.zeros(1, 3, 4, 4)) == []
    assert all(m.training for m in net.modules())


class Fickle(Shared):
    "In training another way is taken."

    def forward(self, x):
        return self.one(self.conv(x) * (2 if self.training else 1) if self.training else self.conv(x))


def test_a_network_that_goes_another_way_in_training_is_no_silent_mistake():
    net = Fickle()
    pairs = norm_pairs(net, torch.zeros(1, 3, 4, 4))
    assert len(pairs) == 1
    net.one.eval()
    with pytest.raises(RuntimeError, match='train it without frozen norms'), FoldedNorms(pairs):
        net(torch.zeros(1, 3, 4, 4))


def test_norms_that_learn_statistics_are_not_folded():
    net, x = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), torch.randn(2, 3, 4, 4)
    with FoldedNorms(norm_pairs(net, x)):
        net(x)
    assert net[1].num_batches_tracked == 1


def learner(frozen=()):
    torch.manual_seed(1)
    body = timm.create_model('test_efficientnet', num_classes=0)
    head = nn.Sequential(nn.BatchNorm1d(body.num_features), nn.Dropout(0.5), nn.Linear(body.num_features, 3))
    net = nn.Sequential(with_statistics(body), head)
    for name, p in net.named_parameters():
        p.requires_grad = not name.startswith(frozen)
    items = [(torch.randn(3, 32, 32), torch.tensor(i % 3)) for i in range(24)]
    dls = DataLoaders.from_dsets(items, items[:16], bs=8, shuffle=False, num_workers=0, device=torch.device('cpu'))
    learn = Learner(dls, net, CrossEntropyLossFlat())
    learn.remove_cb(learn.progress)
    learn.logger = lambda _: None
    return learn


def fitted(precision='fp32', frozen=(), epochs=2):
    learn = learner(frozen)
    torch.manual_seed(2)
    with training_precision(precision, learn), frozen_norms(learn):
        learn.fit(epochs, 1e-3)
    return learn


@pytest.mark.parametrize('frozen', [(), ('0.',)], ids=['all layers', 'the head alone'])
@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_statistics_stay_and_all_else_learns(precision, frozen):
    was, learn = learner().model.state_dict(), fitted(precision, frozen)
    now = learn.model.state_dict()
    assert list(was) == list(now)
    stays = {k for k in was if torch.equal(was[k], now[k])}
    statistics = {k for k in was if k.startswith('0.') and k.rsplit('.')[-1].startswith(('running', 'num_batches'))}
    assert stays == (statistics if not frozen else {k for k in was if k.startswith('0.')})
    again = fitted(precision, frozen).model.state_dict()
    assert all(torch.equal(now[k], again[k]) for k in now)


def test_a_learner_trains_the_same_with_folded_norms_as_with_norms_that_stay():
    class Stay(Callback):
        def before_train(self):
            for m in self.model.modules():
                if isinstance(m, nn.BatchNorm2d):
                    m.eval()

    plain = learner()
    torch.manual_seed(2)
    with plain.added_cbs(Stay()):
        plain.fit(1, 1e-3)
    ours = fitted(epochs=1).model.state_dict()
    for k, v in plain.model.state_dict().items():
        assert torch.allclose(v, ours[k], rtol=1e-2, atol=1e-4), k


def test_validation_is_in_fp32_and_says_with_folded_norms_what_it_says_without():
    learn, seen = learner(), []
    norm = next(m for m in learn.model.modules() if isinstance(m, nn.BatchNorm2d))
    norm.register_forward_hook(lambda m, x, y: seen.append((learn.model.training, x[0].dtype, torch.equal(x[0], y))))
    with training_precision('bf16', learn), frozen_norms(learn):
        learn.fit(1, 1e-3)
    training = [o for o in seen if o[0]]
    assert {o[1] for o in training} == {torch.bfloat16}
    assert [o[1:] for o in seen if not o[0]][-1] == (torch.float32, True)
    folded = learn.recorder.values[-1][1]
    assert abs(learn.validate()[0] - folded) < 1e-4
    assert seen[-1] == (False, torch.float32, False)


@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
@pytest.mark.parametrize('moment', ['forward', 'backward'])
def test_ctrl_c_leaves_no_trace(precision, moment):
    "Not even in the middle of a batch."

    def stop(module, *args):
        if module.training:
            raise KeyboardInterrupt

    learn = learner()
    callbacks, names = [type(cb) for cb in learn.cbs], list(learn.model.state_dict())
    head = learn.model[1]
    hook = head.register_forward_hook(stop) if moment == 'forward' else head.register_full_backward_hook(stop)
    with pytest.raises(KeyboardInterrupt), training_precision(precision, learn), frozen_norms(learn):
        learn.fit(1, 1e-3)
    hook.remove()
    assert [type(cb) for cb in learn.cbs] == callbacks
    assert list(learn.model.state_dict()) == names
    assert not any('forward' in vars(m) for m in learn.model.modules())
    assert not torch.is_autocast_enabled('cpu')
    assert not torch.overrides._get_current_function_mode_stack()
    x = torch.randn(2, 3, 32, 32)
    again = pickle.loads(pickle.dumps(learn.model)).eval()
    assert torch.equal(learn.model.eval()(x), again(x))
