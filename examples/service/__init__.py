"""An event ingestor as a service: an endpoint, pools of workers, a cache, SQLite and a breaker."""
