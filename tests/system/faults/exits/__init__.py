"""Programs that end while telemetry is busy, many times in a row."""
