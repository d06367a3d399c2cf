// Finds accesses that no flag keeps apart.
#include "shadow.h"

namespace ascend_twin {
namespace check {

Clash VisitCell(Cell* cell, uint32_t bytes, const Visit& visit, bool shared, Record* other) {
    const Record& mine = visit.record;
    Clash clash = Clash::kNone;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < cell->count; ++i) {
        const Record& record = cell->records[i];
        const bool meets = (record.bytes & bytes) != 0;
        const bool matters = (record.write || mine.write) && !(record.atomic && mine.atomic);
        if (matters && (meets || shared) && MayBeUnderWay(record, visit)) {
            if (meets) {  // of several the latest, whose flag would order the others too
                clash = Clash::kRace;
                *other = record;
            } else if (record.write && mine.write && clash == Clash::kNone &&
                       record.agent != mine.agent) {
                clash = Clash::kNeighbour;
                *other = record;
            }
        }
        // What comes after this access comes after that one too, or else a race was found.
        const bool covered =
            (record.bytes & ~bytes) == 0 &&
            (mine.write ||
             (!record.write && (record.agent == mine.agent || !MayBeUnderWay(record, visit)))) &&
            !(shared && record.agent != mine.agent && MayBeUnderWay(record, visit));
        if (!covered) cell->records[kept++] = record;
    }
    if (kept == Cell::kRecords) {  // forget the oldest
        for (uint32_t i = 1; i < kept; ++i) cell->records[i - 1] = cell->records[i];
        --kept;
    }
    cell->records[kept] = mine;
    cell->records[kept].bytes = bytes;
    cell->count = static_cast<uint8_t>(kept + 1);
    return clash;
}

Cell& GmShadow::At(uint32_t tensor, uint64_t cell) {
    const uint64_t key = (uint64_t{tensor} << kPageBits) | cell / kPageCells;
    if (key != lastKey_) {
        std::unique_ptr<Cell[]>& page = pages_[key];
        if (page == nullptr) page.reset(new Cell[kPageCells]);
        lastKey_ = key;
        lastPage_ = page.get();
    }
    return lastPage_[cell % kPageCells];
}

}  // namespace check
}  // namespace ascend_twin
