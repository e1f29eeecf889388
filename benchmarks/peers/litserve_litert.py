"""LitServe + LiteRT, two workers; argument: the port."""

import sys

import litserve
from engine import answers


class Digits(litserve.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request):
        return request

    def predict(self, query):
        return (
            {"predictions": answers(query["images"])} if "images" in query else answers([query["image"]])[0]
        )

    def encode_response(self, output):
        return output


if __name__ == "__main__":
    server = litserve.LitServer(Digits(), accelerator="cpu", workers_per_device=2)
    server.run(
        port=int(sys.argv[1]),
        host="127.0.0.1",
        num_api_servers=2,
        generate_client_file=False,
        log_level="error",
    )
