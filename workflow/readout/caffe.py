"""The Caffe AlexNet, in two versions.

Both share the topology of BVLC's `bvlc_alexnet`: five convolutions of which three are in two groups, local response
normalisation, three max-poolings, two dense layers and the output. `caffe_alexnet` is BVLC's own; `theano_alexnet` is
its replication by Ding et al. (2014), trained anew, which pools before it normalises and normalises with other
constants. Weights of one in the other give wrong scores; inputs/conversions.py reads the files of either.
"""

from collections import OrderedDict

from torch import nn

WIDTHS = {"conv1": 96, "conv2": 256, "conv3": 384, "conv4": 384, "conv5": 256, "fc6": 4096, "fc7": 4096}
"""Outputs of the layers below the last."""
SIDE = 6
"""Height and width of what reaches fc6 from an image of 227 pixels."""


class CaffeAlexNet(nn.Sequential):
    """BVLC's AlexNet as in its `deploy.prototxt`, for RGB images [N, 3, 227, 227]; scores [N, outputs].

    Images are on the scale 0 to 255, less the mean. A config prepares them by `resize: [256, 256]`, `crop: 227`,
    `mean: [0.4850196, 0.4579569, 0.4076039]` (123.68, 116.779 and 103.939 in 255) and `std` three times 0.003921569 (1
    in 255). Dropout acts in training only and is left out.
    """

    def __init__(self, outputs: int = 1000):
        conv1, conv2, conv3, conv4, conv5, fc6, fc7 = WIDTHS.values()
        super().__init__(
            OrderedDict(
                conv1=nn.Conv2d(3, conv1, kernel_size=11, stride=4),
                relu1=nn.ReLU(),
                **self.reduction(1),
                conv2=nn.Conv2d(conv1, conv2, kernel_size=5, padding=2, groups=2),
                relu2=nn.ReLU(),
                **self.reduction(2),
                conv3=nn.Conv2d(conv2, conv3, kernel_size=3, padding=1),
                relu3=nn.ReLU(),
                conv4=nn.Conv2d(conv3, conv4, kernel_size=3, padding=1, groups=2),
                relu4=nn.ReLU(),
                conv5=nn.Conv2d(conv4, conv5, kernel_size=3, padding=1, groups=2),
                relu5=nn.ReLU(),
                pool5=nn.MaxPool2d(3, stride=2),
                flatten=nn.Flatten(),
                fc6=nn.Linear(conv5 * SIDE * SIDE, fc6),
                relu6=nn.ReLU(),
                fc7=nn.Linear(fc6, fc7),
                relu7=nn.ReLU(),
                fc8=nn.Linear(fc7, outputs),
            )
        )

    @staticmethod
    def reduction(stage: int) -> dict[str, nn.Module]:
        """x / (1 + alpha / 5 * sum of x^2 over five channels)^beta, then pooling."""
        # ASSUME: normalisation comes before pooling, as in BVLC's own definition.
        norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
        return {f"norm{stage}": norm, f"pool{stage}": nn.MaxPool2d(3, stride=2)}


class TheanoAlexNet(CaffeAlexNet):
    """The replication of BVLC's AlexNet by Ding, Wang, Mao and Taylor (2014), arXiv 1412.2302.

    Images are prepared as for `CaffeAlexNet`.
    """

    @staticmethod
    def reduction(stage: int) -> dict[str, nn.Module]:
        """Pooling, then x / (2 + alpha * sum of x^2 over five channels)^beta: alpha is not divided by five."""
        norm = nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)
        return {f"pool{stage}": nn.MaxPool2d(3, stride=2), f"norm{stage}": norm}


BUILDERS = {"caffe_alexnet": CaffeAlexNet, "theano_alexnet": TheanoAlexNet}
