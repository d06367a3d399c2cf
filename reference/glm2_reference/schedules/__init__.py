"""Tile schedules: attention's loops, walked step by step on a `Memory` that counts what moves.

All of them give what dense attention gives. They differ in what they move, and that is the point.
"""
