"""The parts of the run screen, one at a time below its head."""
