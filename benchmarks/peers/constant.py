"""The ceiling: the same gunicorn and worker with an app that reads the body and answers a constant."""

BODY = b'{"predicted_digit":7,"predicted_probability":0.9854}'


def app(environ, start_response):
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(BODY)))])
    return [BODY]
