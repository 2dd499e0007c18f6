"""Small relatives of the paper's four networks for 32 x 32 images: the same topology, narrow.

They stand on torchvision's own classes where these allow other sizes. None has dropout: at these widths it costs
accuracy, and its random numbers would make the training depend on the order of calls.
"""

import torch
from torch import nn
from torchvision.models.mobilenetv2 import MobileNetV2
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.models.vgg import make_layers


class SmallAlexNet(nn.Module):
    """Five convolutions, three max-poolings, two dense layers and the output, as AlexNet."""

    def __init__(self, outputs: int):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, kernel_size=5, stride=2, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 48, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(48, 96, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(96, 64, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(64 * 2 * 2, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, outputs)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


class SmallVGG16(nn.Module):
    """VGG16's thirteen 3 x 3 convolutions in five stages, made by torchvision's `make_layers`."""

    def __init__(self, outputs: int):
        super().__init__()
        plan = [8, 8, "M", 16, 16, "M", 32, 32, 32, "M", 64, 64, 64, "M", 64, 64, 64, "M"]
        self.features = make_layers(plan)
        self.classifier = nn.Sequential(
            nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, outputs)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


def small_mobilenet_v2(outputs: int) -> nn.Module:
    """MobileNetV2 with its 17 inverted residuals, 8 to 32 channels between them, expanded fourfold."""
    plan = [(1, 8, 1, 1), (4, 8, 2, 1), (4, 8, 3, 2), (4, 16, 4, 2), (4, 16, 3, 1), (4, 24, 3, 2), (4, 32, 1, 1)]
    width = 0.25
    setting = [[expansion, round(channels / width), blocks, stride] for expansion, channels, blocks, stride in plan]
    return MobileNetV2(num_classes=outputs, width_mult=width, inverted_residual_setting=setting, dropout=0.0)


class SmallResNet(ResNet):
    """A ResNet of eight torchvision `Bottleneck` blocks in four stages; torchvision's own starts at 64 planes."""

    def __init__(self, outputs: int):
        nn.Module.__init__(self)
        self._norm_layer = nn.BatchNorm2d
        self.inplanes, self.dilation, self.groups, self.base_width = 16, 1, 1, 64
        self.conv1 = nn.Conv2d(3, 16, kernel_size=5, stride=2, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(2)
        self.layer1 = self._make_layer(Bottleneck, 8, 2)
        self.layer2 = self._make_layer(Bottleneck, 16, 2, stride=2)
        self.layer3 = self._make_layer(Bottleneck, 32, 2, stride=2)
        self.layer4 = self._make_layer(Bottleneck, 64, 2, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64 * Bottleneck.expansion, outputs)


BUILDERS = {
    "small_alexnet": SmallAlexNet,
    "small_vgg16": SmallVGG16,
    "small_mobilenet_v2": small_mobilenet_v2,
    "small_resnet": SmallResNet,
}
