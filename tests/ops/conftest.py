"""Fixtures of the operators' tests."""

import pytest


@pytest.fixture
def compilations(monkeypatch):
    """Return a list that grows by the cell's name at every compilation of a graph."""
    from mindspore import nn

    compiled = []
    real = nn.Cell.compile

    def counting(cell, *args, **kwargs):
        before = set(cell.compile_cache)
        result = real(cell, *args, **kwargs)
        compiled.extend([type(cell).__name__] * len(set(cell.compile_cache) - before))
        return result

    monkeypatch.setattr(nn.Cell, "compile", counting)
    return compiled
