"""Providers, exporters and a bounded ending: the only room that imports the OpenTelemetry SDK.

`configure()` imports `export.providers` when it is called; nothing is imported here, so that
`export.environment` can be read without the SDK.
"""
