"""The live dashboard of Corral."""
