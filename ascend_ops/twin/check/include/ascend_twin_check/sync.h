// Flags, barriers and modes of a core. The engine keeps them; here are their names.
#ifndef ASCEND_TWIN_CHECK_SYNC_H_
#define ASCEND_TWIN_CHECK_SYNC_H_

#include <cstdint>
#include <type_traits>

#include "ascend_twin_check/operation.h"
#include "ascend_twin_check/tensor.h"

namespace ascend_twin {
namespace check {

void InitSocState(Site site);
void SetFlag(HardEvent event, int64_t id, Site site);
void WaitFlag(HardEvent event, int64_t id, Site site);
void PipeBarrier(pipe_t pipe, Site site);
void CrossCoreSetFlag(uint32_t mode, pipe_t pipe, int64_t id, Site site);
void CrossCoreWaitFlag(uint32_t mode, int64_t id, Site site);
void SyncAll(bool aivOnly, Site site);
void SetAtomicAdd(bool on, Site site);
void SetMaskCount(bool on, Site site);
void CleanCache(uint64_t address, uint64_t bytes, Site site);

}  // namespace check
}  // namespace ascend_twin

namespace AscendC {

using TwinSite = ::ascend_twin::check::Site;

inline void InitSocState(TwinSite site = TwinSite::Here()) {
    ascend_twin::check::InitSocState(site);
}

template <HardEvent event>
inline void SetFlag(int64_t eventId, TwinSite site = TwinSite::Here()) {
    ascend_twin::check::SetFlag(event, eventId, site);
}

template <HardEvent event>
inline void WaitFlag(int64_t eventId, TwinSite site = TwinSite::Here()) {
    ascend_twin::check::WaitFlag(event, eventId, site);
}

template <pipe_t pipe>
inline void PipeBarrier(TwinSite site = TwinSite::Here()) {
    ascend_twin::check::PipeBarrier(pipe, site);
}

template <uint8_t modeId, pipe_t pipe>
inline void CrossCoreSetFlag(int64_t flagId, TwinSite site = TwinSite::Here()) {
    ascend_twin::check::CrossCoreSetFlag(modeId, pipe, flagId, site);
}

template <uint8_t modeId = 0, pipe_t pipe = PIPE_S>
inline void CrossCoreWaitFlag(int64_t flagId, TwinSite site = TwinSite::Here()) {
    ascend_twin::check::CrossCoreWaitFlag(modeId, flagId, site);
}

template <bool isAIVOnly = true>
inline void SyncAll(TwinSite site = TwinSite::Here()) {
    ascend_twin::check::SyncAll(isAIVOnly, site);
}

// From here on stores of UB and L0C add to what GM holds. Check mode alone serves it.
template <typename T>
inline void SetAtomicAdd(TwinSite site = TwinSite::Here()) {
    static_assert(std::is_same_v<T, float>, "the twin's SetAtomicAdd serves float");
    ascend_twin::check::SetAtomicAdd(true, site);
}
inline void SetAtomicNone(TwinSite site = TwinSite::Here()) {
    ascend_twin::check::SetAtomicAdd(false, site);
}

// The mode in which vector calls take their mask. Check mode alone serves it, and only to say
// where it was left on.
inline void SetMaskCount(TwinSite site = TwinSite::Here()) {
    ascend_twin::check::SetMaskCount(true, site);
}
inline void SetMaskNorm(TwinSite site = TwinSite::Here()) {
    ascend_twin::check::SetMaskCount(false, site);
}

enum class CacheLine : uint8_t { SINGLE_CACHE_LINE, ENTIRE_DATA_CACHE };
enum class DcciDst : uint8_t { CACHELINE_ALL, CACHELINE_UB, CACHELINE_OUT, CACHELINE_ATOMIC };

// Writes back what the scalar unit wrote: a line of 64 bytes, or everything.
template <typename T, CacheLine entireType, DcciDst dcciDst = DcciDst::CACHELINE_OUT>
inline void DataCacheCleanAndInvalid(const GlobalTensor<T>& dst, TwinSite site = TwinSite::Here()) {
    constexpr uint64_t kLine = 64;
    const uint64_t address = reinterpret_cast<uint64_t>(dst.GetPhyAddr());
    if (entireType == CacheLine::ENTIRE_DATA_CACHE) {
        ascend_twin::check::CleanCache(0, UINT64_MAX, site);
    } else {
        ascend_twin::check::CleanCache(address / kLine * kLine, kLine, site);
    }
}

}  // namespace AscendC

#endif  // ASCEND_TWIN_CHECK_SYNC_H_
