// What is known of every 32 bytes of a memory: who wrote and read them last, and through what.
#ifndef ASCEND_TWIN_CHECK_SHADOW_H_
#define ASCEND_TWIN_CHECK_SHADOW_H_

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "ascend_twin_check/operation.h"
#include "clock.h"

namespace ascend_twin {
namespace check {

constexpr uint32_t kCellBytes = 32;

// One access to some bytes of a cell.
struct Record {
    uint32_t number;  // of the operation, by its agent
    uint32_t bytes;   // a bit each
    uint16_t agent;
    uint16_t site;  // see Engine::SiteNumber
    bool write;
    bool atomic;
    bool bytewise;  // stores no byte beside its own
};

struct Cell {
    static constexpr uint32_t kRecords = 5;

    uint32_t written = 0;      // bytes that anything was written to
    uint32_t scalar = 0;       // bytes that lie in the scalar unit's cache alone
    uint16_t declaration = 0;  // the static tensor of the last write
    uint8_t tensor = 0;        // the GM tensor that its contents came from, plus one
    uint8_t count = 0;
    Record records[kRecords];
};

// The access that visits cells.
struct Visit {
    Record record;  // of it, but for the bytes
    const Clock* clock;
    uint32_t ownDone;  // of its own agent's operations, those known to have ended
};

enum class Clash : uint8_t { kNone, kRace, kNeighbour };

// Whether `record` may still be under way when the visitor starts. The operands of one call are no
// danger to one another.
inline bool MayBeUnderWay(const Record& record, const Visit& visit) {
    if (record.agent == visit.record.agent && record.number == visit.record.number) return false;
    const uint32_t done =
        record.agent == visit.record.agent ? visit.ownDone : (*visit.clock)[record.agent];
    return record.number > done;
}

// Looks whether an access to `bytes` of a cell clashes with an earlier one, which goes to `*other`,
// and leaves the access in the cell. `shared`: several cores write there.
Clash VisitCell(Cell* cell, uint32_t bytes, const Visit& visit, bool shared, Record* other);

// Cells of a memory that begins at 0.
class LocalShadow {
  public:
    explicit LocalShadow(uint64_t bytes) : cells_(bytes / kCellBytes) {}
    Cell& operator[](uint64_t cell) { return cells_[cell]; }

  private:
    std::vector<Cell> cells_;
};

// Cells of GM, by the page, as they come into use.
class GmShadow {
  public:
    // Cell number `cell` of a tensor.
    Cell& At(uint32_t tensor, uint64_t cell);
    // f(tensor, cell number, cell) for all in use.
    template <typename F>
    void ForEach(const F& f) {
        for (auto& [key, page] : pages_) {
            for (uint32_t i = 0; i < kPageCells; ++i) {
                f(static_cast<uint32_t>(key >> kPageBits),
                  (key & ((uint64_t{1} << kPageBits) - 1)) * kPageCells + i, page[i]);
            }
        }
    }

  private:
    static constexpr uint32_t kPageCells = 128;
    static constexpr uint32_t kPageBits = 52 - 12;

    std::unordered_map<uint64_t, std::unique_ptr<Cell[]>> pages_;
    uint64_t lastKey_ = ~uint64_t{0};
    Cell* lastPage_ = nullptr;
};

}  // namespace check
}  // namespace ascend_twin

#endif  // ASCEND_TWIN_CHECK_SHADOW_H_
