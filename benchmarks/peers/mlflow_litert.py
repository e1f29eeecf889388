"""MLflow's scoring server + LiteRT: saves a pyfunc model in the folder named by the argument."""

import sys

import mlflow.pyfunc


class Digits(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        from engine import answers

        return [a["predicted_digit"] for a in answers(model_input)]


if __name__ == "__main__":
    mlflow.pyfunc.save_model(sys.argv[1], python_model=Digits(), pip_requirements=[])
