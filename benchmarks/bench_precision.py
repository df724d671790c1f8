"""A training step in fp32 and in bfloat16, for networks of several kinds, on a CPU that has bfloat16.

    OMP_NUM_THREADS=1 python benchmarks/bench_precision.py > benchmarks/results/precision.csv

Seconds of processor time on one core, the lesser of two steps with 8 photos: other processes hardly matter.
"""

import time

import timm
import torch

ARCHS = """resnet18 resnet34 resnet50 densenet121 vgg11_bn regnety_004 test_resnet tf_efficientnet_lite0
tf_efficientnet_lite2 efficientnet_b0 mobilenetv2_100 mobilenetv3_large_100 convnext_tiny convnext_atto
test_efficientnet test_convnext""".split()


def seconds(model, size, low):
    "The lesser of two steps, after one that warms up."
    x = torch.rand(8, 3, size, size).contiguous(memory_format=torch.channels_last)
    taken = []
    for _ in range(3):
        start = time.process_time()
        with torch.autocast('cpu', torch.bfloat16, enabled=low):
            out = model(x)
        out.float().square().mean().backward()
        taken.append(time.process_time() - start)
    return min(taken[1:])


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    print('arch,depthwise,size,fp32,bf16')
    for arch in ARCHS:
        for size in (64, 224):
            model = timm.create_model(arch, num_classes=11).to(memory_format=torch.channels_last).train()
            convs = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
            depthwise = any(1 < m.groups == m.in_channels for m in convs)
            times = (f'{seconds(model, size, low):.3f}' for low in (False, True))
            print(arch, depthwise, size, *times, sep=',', flush=True)


if __name__ == '__main__':
    main()
