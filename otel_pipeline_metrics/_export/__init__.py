"""Providers, exporters and a bounded shutdown: the only room that imports the SDK.

`configure()` imports `_export.providers` when it is called. Nothing is imported here, so that
`_export.environment` can be read without the SDK.
"""
