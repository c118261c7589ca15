"""Measure speed: against SegFormer as it is usually run, against our image mode, and against the machine's limits."""
