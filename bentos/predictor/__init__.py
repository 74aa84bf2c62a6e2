"""The predictor: one ASGI app that answers a model's requests, logs every answer and counts it.

It knows nothing of how the model was made. A bento is this package plus a folder `artefacts/`
(`model.onnx` or `model.skops`, `schema.json`, `golden.json`, `identity.json`).
"""
