"""The code behind app.py, train.py and gunicorn.conf.py; docs/architecture.md says what is where."""
