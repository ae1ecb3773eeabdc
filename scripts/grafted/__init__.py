"""What `scripts/graft_networks.py` and the tests of grafts compare networks by."""
