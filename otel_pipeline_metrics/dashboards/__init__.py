"""What Prometheus does with the metrics of pipelines: rules for alerts, written by `opm rules`."""
