"""The Flask app: everything between an HTTP request and its answer. app.py puts it together."""
