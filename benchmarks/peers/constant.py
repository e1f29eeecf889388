"""The upper bound: the same gunicorn and worker with an app that reads the body and returns a constant answer."""

BODY = b'{"predicted_digit":7,"predicted_probability":0.9854}'


def app(environ, start_response):
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(BODY)))])
    return [BODY]
