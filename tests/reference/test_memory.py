"""Memory: what it counts, and what it refuses."""

import numpy as np
import pytest

from glm2_reference.buffers import count_bursts, region_shape
from glm2_reference.memory import Memory, MemoryLimitError
from glm2_reference.memory_systems import A100, ASCEND_A2, CPU, KIB, SYSTEMS


def test_loads_and_stores_are_counted_by_tensor_and_direction():
    memory = Memory(A100)
    x = memory.place("x", np.arange(24.0).reshape(6, 4), element_bytes=2)
    y = memory.place("y", shape=(6, 4), element_bytes=2)
    tile = memory.load(x, (slice(2, 5),), level="sram")
    memory.compute("double", lambda data: np.multiply(data, 2, out=data), tile, flops=7)
    memory.store(tile, y, (slice(2, 5),))
    assert memory.read_bytes("hbm") == memory.write_bytes("hbm") == 3 * 4 * 2
    assert memory.read_bytes("hbm", "x") == 24
    assert memory.read_bytes("hbm", "y") == 0
    assert memory.write_bytes("sram", "x") == 24
    assert memory.moved_bytes() == memory.moved_bytes("sram") == 48
    assert memory.flops == 7
    np.testing.assert_array_equal(y.data[2:5], 2 * x.data[2:5])
    np.testing.assert_array_equal(x.data, np.arange(24).reshape(6, 4))  # the tensor is as it was
    assert memory.counters()["hbm"]["x"] == {"read_bytes": 24, "write_bytes": 0, "bursts": 1}


@pytest.mark.parametrize(
    ("region", "runs"),
    [
        ((), 1),
        ((slice(1, 3),), 1),
        ((slice(None), slice(0, 5)), 1),
        ((slice(1, 3), slice(0, 5)), 1),
        ((slice(1, 3), slice(0, 4)), 2),
        ((slice(1, 3), slice(0, 5), slice(0, 6)), 10),
        ((slice(1, 2), slice(2, 3), slice(0, 6)), 1),
        ((slice(3, 3),), 0),
    ],
)
def test_bursts_are_the_contiguous_runs_of_a_region(region, runs):
    shape = (4, 5, 7)
    assert count_bursts(shape, region) == runs
    flags = np.zeros(shape, dtype=int)
    flags[region] = 1
    assert region_shape(shape, region) == flags[region].shape
    starts = np.diff(np.concatenate([[0], flags.reshape(-1)])) == 1
    assert starts.sum() == runs  # counted in the flat array


def test_used_and_peak_bytes_follow_allocation_and_free():
    memory = Memory(A100)
    first = memory.allocate("a", (10, 10), level="sram", element_bytes=4)
    second = memory.allocate("b", (5,), level="sram", element_bytes=2, fill=-1.0)
    assert memory.used_bytes["sram"] == memory.peak_bytes["sram"] == 410
    assert second.data.tolist() == [-1.0] * 5
    memory.free(first)
    assert memory.used_bytes["sram"] == 10
    assert memory.peak_bytes["sram"] == 410


def test_scope_frees_what_was_made_inside_it():
    memory = Memory(CPU)
    kept = memory.allocate("kept", (4,), level="cache", element_bytes=4)
    with memory.scope():
        memory.allocate("inner", (4,), level="cache", element_bytes=4)
        gone = memory.allocate("gone", (4,), level="cache", element_bytes=4)
        memory.free(gone)
    assert memory.used_bytes["cache"] == kept.nbytes


def test_a_tile_that_does_not_fit_is_refused_with_what_to_lower():
    memory = Memory(A100)
    memory.name_tiles(block_m=64, block_n=512)
    memory.allocate("k", (512, 64), level="sram", element_bytes=2)
    with pytest.raises(MemoryLimitError) as error:
        memory.allocate("scores", (64, 2048), level="sram", element_bytes=4)
    assert str(error.value) == (
        "sram needs 589824 bytes for block_m=64, block_n=512 (k 65536, scores 524288), but holds "
        "196608; lower block_m or block_n"
    )
    with pytest.raises(MemoryLimitError, match="lower the tiles"):
        Memory(A100).allocate("x", (10**6,), level="sram", element_bytes=2)


def test_without_limits_the_peak_tells_what_was_needed():
    memory = Memory(A100, limited=False, compute=False)
    memory.allocate("x", (KIB, KIB), level="sram", element_bytes=2)
    assert memory.peak_bytes["sram"] == 2 * KIB * KIB


def test_tensors_must_be_loaded_before_use():
    memory = Memory(A100)
    x = memory.place("x", np.ones(4))
    with pytest.raises(ValueError, match=r"relu: x is in hbm, where nothing computes; load it"):
        memory.compute("relu", np.sign, x)


def test_freed_tiles_are_refused():
    memory = Memory(A100)
    x = memory.place("x", np.ones(4))
    tile = memory.load(x, level="sram")
    memory.free(tile)
    for use in (
        lambda: memory.compute("f", np.sign, tile),
        lambda: memory.store(tile, x),
        lambda: memory.free(tile),
        lambda: memory.copy(x, (), tile),
    ):
        with pytest.raises(ValueError, match="x in sram was freed; load it again"):
            use()


def test_ascend_moves_only_where_the_hardware_can():
    memory = Memory(ASCEND_A2)
    x = memory.place("x", np.ones((16, 16)), element_bytes=2)
    with pytest.raises(ValueError, match="x: ascend_a2 cannot move from gm to l0a"):
        memory.load(x, level="l0a")
    l1 = memory.load(x, level="l1")
    l0a = memory.load(l1, level="l0a")
    with pytest.raises(ValueError, match="cannot move from l0a to gm"):
        memory.store(l0a, x)
    l0c = memory.allocate("y", (16, 16), level="l0c", element_bytes=4)
    with pytest.raises(ValueError, match="cannot move from l0c to ub"):
        memory.load(l0c, level="ub")
    memory.store(l0c, x)
    assert memory.counters()["l1"]["x"] == {"read_bytes": 512, "write_bytes": 512, "bursts": 2}


def test_a_trace_counts_the_same_without_data():
    def walk(memory, data):
        x = memory.place("x", data, shape=(8, 4), element_bytes=2)
        tile = memory.load(x, (slice(0, 3), slice(1, 3)), level="sram")
        memory.compute("f", lambda _: None, tile, flops=5)
        memory.store(tile, x, (slice(0, 3), slice(1, 3)))
        return memory

    real = walk(Memory(A100), np.ones((8, 4)))
    traced = walk(Memory(A100, compute=False), None)
    assert traced.counters() == real.counters()
    assert traced.flops == real.flops
    assert traced.peak_bytes == real.peak_bytes


def test_repeated_multiplies_what_a_trace_counts():
    memory = Memory(A100, compute=False)
    x = memory.place("x", shape=(8,), element_bytes=2)
    with memory.repeated(3), memory.repeated(5):
        memory.free(memory.load(x, level="sram"))
    memory.free(memory.load(x, level="sram"))
    assert memory.read_bytes("hbm") == 16 * 16
    with pytest.raises(ValueError, match="walk every head"), Memory(A100).repeated(2):
        pass


def test_recording_keeps_every_step_and_what_was_held_after_it():
    memory = Memory(A100, record=True)
    x = memory.place("x", np.ones(8), element_bytes=2)
    tile = memory.load(x, level="sram")
    memory.compute("f", lambda _: None, tile)
    memory.store(tile, x)
    memory.free(tile)
    assert [event.kind for event in memory.events] == ["load", "compute", "store", "free"]
    assert [event.used_bytes["sram"] for event in memory.events] == [16, 16, 16, 0]


def test_bad_calls_are_named():
    memory = Memory(A100)
    with pytest.raises(ValueError, match="x has neither data nor a shape"):
        memory.place("x")
    with pytest.raises(ValueError, match=r"a100 has no memory called 'l1'; it has hbm, sram"):
        memory.allocate("x", (2,), level="l1", element_bytes=2)
    with pytest.raises(ValueError, match="no memory called"):
        memory.read_bytes("ub")


def test_every_system_has_an_outermost_level_and_one_that_computes():
    for name, system in SYSTEMS.items():
        assert system.name == name
        assert not system.outermost.computes
        assert system.compute_level.computes
        assert system.outermost.capacity_bytes == max(x.capacity_bytes for x in system.levels)
        assert all(system.level(end) for pair in system.moves for end in pair)


def test_a_tensor_without_a_width_has_that_of_its_array():
    assert Memory(A100).place("x", np.ones(4, np.float16)).nbytes == 8
    assert Memory(A100).place("x", shape=(4,)).nbytes == 32
    assert Memory(A100, compute=False).place("x", shape=(4,)).nbytes == 32


def test_moves_do_not_broadcast():
    memory = Memory(A100)
    x = memory.place("x", shape=(8, 4))
    row = memory.allocate("row", (1, 4), level="sram", element_bytes=8)
    with pytest.raises(ValueError, match=r"row has shape \(1, 4\), but the region of x \(8, 4\)"):
        memory.store(row, x, (slice(0, 8),))
    with pytest.raises(ValueError, match="a move does not broadcast"):
        memory.copy(x, (slice(0, 2),), row)
    assert memory.moved_bytes() == 0


def test_regions_have_no_steps_and_no_extra_axes():
    for region in ((slice(0, 8, 2),), (slice(0, 2), slice(0, 1))):
        with pytest.raises(ValueError, match=r"does not fit a tensor of shape \(8,\)"):
            region_shape((8,), region)


def test_a_refused_load_takes_no_room():
    memory = Memory(ASCEND_A2)
    x = memory.place("x", np.ones((16, 16)))
    with pytest.raises(ValueError, match="cannot move"):
        memory.load(x, level="l0a")
    assert memory.used_bytes["l0a"] == memory.peak_bytes["l0a"] == 0
    memory.free(x)
    with pytest.raises(ValueError, match="x in gm was freed"):
        memory.load(x, level="l1")
    assert memory.used_bytes["l1"] == 0


def test_errors_leave_the_counters_as_they_were():
    memory = Memory(A100, compute=False)

    def fail():
        with memory.repeated(7), memory.scope():
            memory.allocate("x", (4,), level="sram", element_bytes=2)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert memory.times == 1
    assert memory.used_bytes["sram"] == 0


def test_sizes_and_owners_are_checked():
    memory = Memory(A100)
    with pytest.raises(ValueError, match=r"x has shape \(-5,\); expected sizes of 0 or more"):
        memory.allocate("x", (-5,), level="sram", element_bytes=2)
    with pytest.raises(ValueError, match=r"x has shape \(3,\), but \(99,\) was asked for"):
        memory.place("x", np.ones(3), shape=(99,))
    with pytest.raises(ValueError, match="x is not of this memory"):
        Memory(A100).free(memory.place("x", np.ones(3)))
