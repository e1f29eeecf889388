"""The Flask app: everything between an HTTP request and its answer. Each module with routes has a blueprint
named `bp`."""
