"""The live dashboard of Corral."""

from corral_tui.dashboard import run_dashboard

__all__ = ["run_dashboard"]
