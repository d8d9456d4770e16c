"""Files of weights, read without a network: .safetensors, .pth and .onnx, and the tensors they must hold."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
