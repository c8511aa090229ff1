"""ProbeMonitor into a trained network: its filters, what its layers answer to, where it fails and why."""
