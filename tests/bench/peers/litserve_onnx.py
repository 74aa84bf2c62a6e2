"""LitServe as its documentation shows it, with ONNX Runtime; one worker."""

import os
import sys

import litserve
import numpy as np
import onnxruntime

NAMES = ("sepal_length", "sepal_width", "petal_length", "petal_width")
CLASSES = ("setosa", "versicolor", "virginica")


class Forest(litserve.LitAPI):
    def setup(self, device):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            os.environ["BENCH_ONNX"], options, providers=["CPUExecutionProvider"]
        )

    def decode_request(self, request):
        rows = request.get("rows", [request])
        return np.array([[row[name] for name in NAMES] for row in rows], np.float32)

    def predict(self, matrix):
        return self.session.run(None, {"input": matrix})

    def encode_response(self, output):
        labels, probabilities = output
        return [
            {"prediction": CLASSES[index], "probabilities": row}
            for index, row in zip(labels.tolist(), probabilities.tolist(), strict=True)
        ]


if __name__ == "__main__":
    server = litserve.LitServer(Forest(), accelerator="cpu", workers_per_device=1, max_payload_size=64_000_000)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False, log_level="warning"
    )
