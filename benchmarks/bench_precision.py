"""A training step in fp32 and in bfloat16, its norms learning statistics or frozen, for networks of several kinds.

    OMP_NUM_THREADS=1 python benchmarks/bench_precision.py > benchmarks/results/precision.csv

Seconds of processor time on one core, the least of three steps with 4 photos, by turns: other processes hardly matter.
`bf16` is autocast alone, `bf16, ours` has the gradients of depthwise convolutions in fp32, `frozen` has batch norms
folded into the convolutions before them. ONEDNN_MAX_CPU_ISA=AVX2 imitates a processor without bfloat16.
"""

import csv
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import timm
import torch

from cloud_classifier.training.callbacks import FoldedNorms, FP32DepthwiseGrad, has_bfloat16, norm_pairs

SIZES = {arch: (128, 160, 224, 260) for arch in ('resnet34', 'tf_efficientnet_lite0', 'tf_efficientnet_lite2')}
OTHERS = 'efficientnet_b0 mobilenetv2_100 mobilenetv3_large_100 convnext_atto densenet121 regnety_004'.split()
WAYS = {  # autocast to bfloat16, gradients of depthwise convolutions in fp32, frozen norms
    'fp32': (False, False, False),
    'bf16': (True, False, False),
    'bf16, ours': (True, True, False),
    'fp32, frozen': (False, False, True),
    'bf16, frozen': (True, True, True),
}
FLAGS = 'avx2', 'avx512f', 'avx512_bf16', 'amx_bf16'


def seconds(model, x, low, ours, frozen):
    "One step."
    for m in model.train().modules():
        if isinstance(m, torch.nn.BatchNorm2d) and frozen:
            m.eval()
    pairs = norm_pairs(model, x[:1]) if frozen else []
    start = time.process_time()
    with ExitStack() as stack:
        stack.enter_context(torch.autocast('cpu', torch.bfloat16, enabled=low))
        for mode in ([FP32DepthwiseGrad()] if ours else []) + ([FoldedNorms(pairs)] if frozen else []):
            stack.enter_context(mode)
        out = model(x)
    out.float().square().mean().backward()
    return time.process_time() - start


def processor():
    "The flags that matter, where the system tells them; whether bfloat16 is hardware's here."
    file = Path('/proc/cpuinfo')
    flags = file.read_text().split() if file.exists() else []
    return ' '.join(flag for flag in FLAGS if flag in flags), has_bfloat16(torch.device('cpu'))


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    table = csv.writer(sys.stdout, lineterminator='\n')
    table.writerow(['arch', 'depthwise', 'size', *WAYS, 'flags', 'bfloat16 in hardware'])
    for arch, sizes in (SIZES | dict.fromkeys(OTHERS, (64, 224))).items():
        for size in sizes:
            model = timm.create_model(arch, num_classes=11).to(memory_format=torch.channels_last)
            x = torch.rand(4, 3, size, size).contiguous(memory_format=torch.channels_last)
            turns = [[seconds(model, x, *way) for way in WAYS.values()] for _ in range(4)]
            times = (f'{min(t):.3f}' for t in zip(*turns[1:], strict=True))
            convs = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
            table.writerow([arch, any(1 < m.groups == m.in_channels for m in convs), size, *times, *processor()])
            sys.stdout.flush()


if __name__ == '__main__':
    main()
