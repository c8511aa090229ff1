"""Monitors: each measures one thing while a model trains, for the loggers and for the rules of workbench.findings."""
