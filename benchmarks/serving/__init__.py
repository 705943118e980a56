"""The server under load: throughput and latency, a soak, kills, hostile clients. Loopback only."""
