"""Loads the plugin for a checkout, installed or not."""

pytest_plugins = ["compress.pytest_plugin", "pytester"]
