"""FastAPI + uvicorn (uvloop, httptools) + LiteRT, without metrics and request logs."""

from engine import answers
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Query(BaseModel):
    image: list[list[int]] | None = None
    images: list[list[list[int]]] | None = None


@app.post("/predict")
async def predict(query: Query):
    if query.image is not None:
        return answers([query.image])[0]
    return {"predictions": answers(query.images)}
