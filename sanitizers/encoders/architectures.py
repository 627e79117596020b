"""Two nets from images to `WIDTH` features and on to classes: one for a CPU, one for a GPU."""

from __future__ import annotations

from typing import Any

#: Features of an image.
WIDTH = 64


def small_net(torch: Any, shape: tuple[int, ...], classes: int) -> tuple[Any, Any]:
    """Three convolutions that halve the image, and two dense layers.

    Parameters
    ----------
    torch : module
    shape : (int, int, int, int)
        Of the images, (n, H, W, C).
    classes : int

    Returns
    -------
    (torch.nn.Module, torch.nn.Module)
        From images to features, and from features to logits.
    """
    nn = torch.nn
    blocks: list[Any] = []
    inputs, height, width = shape[3], shape[1], shape[2]
    for outputs, size in ((16, 5), (32, 3), (64, 3)):
        conv = nn.Conv2d(inputs, outputs, size, stride=2, padding=size // 2)
        blocks += [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
        inputs, height, width = outputs, (height + 1) // 2, (width + 1) // 2
    blocks += [nn.Flatten(), nn.Linear(inputs * height * width, WIDTH), nn.ReLU()]
    layers = nn.Sequential(*blocks).to(memory_format=torch.channels_last)
    return layers, nn.Linear(WIDTH, classes)


def residual_net(torch: Any, shape: tuple[int, ...], classes: int) -> tuple[Any, Any]:
    """Six residual blocks of two convolutions, in three sizes, and two dense layers.

    Parameters and returns are those of `small_net`.

    References
    ----------
    He et al., "Deep residual learning for image recognition", CVPR 2016.
    """
    nn = torch.nn

    class Residual(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
                nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )
            same = stride == 1 and inputs == outputs
            straight = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.skip = nn.Identity() if same else straight

        def forward(self, x: Any) -> Any:
            return nn.functional.relu(self.body(x) + self.skip(x))

    blocks: list[Any] = [nn.Conv2d(shape[3], 64, 3, 1, 1, bias=False)]
    blocks += [nn.BatchNorm2d(64), nn.ReLU()]
    for inputs, outputs, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2)):
        blocks += [Residual(inputs, outputs, stride), Residual(outputs, outputs, 1)]
    blocks += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, WIDTH), nn.ReLU()]
    layers = nn.Sequential(*blocks).to(memory_format=torch.channels_last)
    return layers, nn.Linear(WIDTH, classes)
