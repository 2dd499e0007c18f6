"""A network's tail through OpenVINO, an optional extra for the CPU (envs/openvino.txt).

Faster than torch for networks of small convolutions (MobileNetV2); scores differ in their last bits.
"""

import threading
import warnings

import torch
from torch import nn

from readout import StudyError

_converting = threading.Lock()


class Tail:
    """The part of a network behind a cut, compiled; called like it, by any number of threads, one core each.

    Compiled for tensors like those of `example`, in float32, for any number of images.
    """

    def __init__(self, tail: nn.Module, example: tuple[torch.Tensor, ...]):
        try:
            import openvino
        except ImportError as error:
            raise StudyError(
                "device: openvino is not installed; `pip install -r envs/openvino.txt`, or set device to cpu"
            ) from error
        # It traces with torch, whose state is the process's own; so are the filters of warnings.
        with _converting, warnings.catch_warnings():
            # It uses a part of torch that torch calls old.
            warnings.simplefilter("ignore")
            model = openvino.convert_model(tail, example_input=tuple(part.contiguous() for part in example))
        shapes = [openvino.PartialShape([-1, *part.shape[1:]]) for part in example]
        model.reshape(dict(zip(model.inputs, shapes, strict=True)))
        self.nbytes = sum(tensor.nbytes for tensor in tail.state_dict().values())
        # As in torch: one thread per job, and nothing rounded to less than float32.
        settings = {
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,
        }
        self._compiled = openvino.Core().compile_model(model, "CPU", settings)
        self._requests = threading.local()

    def __call__(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Scores [N, outputs] of the tensors alive at the cut; StudyError where a gradient is asked for."""
        if any(tensor.requires_grad for tensor in tensors):
            raise StudyError("device: openvino gives no gradients; set device to cpu")
        if not hasattr(self._requests, "own"):
            self._requests.own = self._compiled.create_infer_request()
        given = [tensor.contiguous().numpy() for tensor in tensors]
        return torch.from_numpy(self._requests.own.infer(given)[0].copy())
