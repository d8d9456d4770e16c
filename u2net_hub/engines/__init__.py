"""Run the network in torch, ONNX Runtime or OpenVINO; export it and quantise it to int8."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
