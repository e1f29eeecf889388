"""The code of the service, the training and the bulk tool. docs/architecture.md describes the packages."""
