"""What ``steno up`` needs besides Steno: a stand-in provider and a real Envoy."""
