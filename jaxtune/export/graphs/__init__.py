"""The graphs of ONNX files, one family a file; needs no package of ONNX."""
