"""Experiments during a run: what would a stage that is twice as fast gain?"""
