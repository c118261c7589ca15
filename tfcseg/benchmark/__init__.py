"""Measure speed, compared with SegFormer as it is usually run, with mode ``image``, and with the machine's limits."""
