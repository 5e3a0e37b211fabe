"""MONAI Label with our bundles: an environment of its own, a laid-out app, and one command that starts the server."""
