"""A clean environment, and collectors of the export tests."""

from tests.export.conftest import api_globals, clean_environment, grpc_collector, http_collector

__all__ = ["api_globals", "clean_environment", "grpc_collector", "http_collector"]
