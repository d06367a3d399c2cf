// Flags and barriers. Inside a core fast mode runs every call to its end before the next one
// starts, so they cost nothing; across the AIC and its AIVs, and across cores, they schedule.
#ifndef ASCEND_TWIN_SYNC_H_
#define ASCEND_TWIN_SYNC_H_

#include <cstdint>

#include "ascend_twin/core.h"
#include "ascend_twin/params.h"
#include "ascend_twin/tensor.h"

namespace ascend_twin {

// Blocks the running AIV until those of all cores have come; see launch.cpp.
void SyncAllAivs();

}  // namespace ascend_twin

namespace AscendC {

template <HardEvent event>
inline void SetFlag(int32_t /*eventId*/) {}

template <HardEvent event>
inline void WaitFlag(int32_t /*eventId*/) {}

template <pipe_t pipe>
inline void PipeBarrier() {}

// modeId 2, the one served: an AIC's set releases both of its AIVs, its wait needs both of theirs.
template <uint8_t modeId, pipe_t pipe>
inline void CrossCoreSetFlag(uint16_t flagId) {
    static_assert(modeId == 2, "the twin serves CrossCoreSetFlag in mode 2 (AIC and its two AIVs)");
    static_assert(pipe != PIPE_S && pipe != PIPE_ALL,
                  "CrossCoreSetFlag takes one pipe, not PIPE_S");
    ascend_twin::ToUb()->Make();  // others may overwrite its source from now on
    ascend_twin::CrossCoreSet(flagId);
}

template <uint8_t modeId = 0, pipe_t pipe = PIPE_S>
inline void CrossCoreWaitFlag(uint16_t flagId) {
    ascend_twin::CrossCoreWait(flagId);
}

// Among the AIVs of all cores of a MIX kernel, the form served.
template <bool isAIVOnly = true>
inline void SyncAll() {
    static_assert(isAIVOnly, "the twin serves SyncAll among AIVs, without the AICs");
    ascend_twin::ToUb()->Make();
    ascend_twin::SyncAllAivs();
}

}  // namespace AscendC

#endif  // ASCEND_TWIN_SYNC_H_
