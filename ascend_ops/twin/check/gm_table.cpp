// Looks GM addresses up.
#include "gm_table.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace ascend_twin {
namespace check {
namespace {

thread_local std::vector<GmTensor> tNamed;

uint64_t Begin(const GmTensor& tensor) { return reinterpret_cast<uint64_t>(tensor.data); }

uint8_t* Bytes(const GmTensor& tensor) {
    return static_cast<uint8_t*>(const_cast<void*>(tensor.data));
}

bool IsWritten(const GmTensor& tensor) {
    return tensor.use == GmUse::kOut || tensor.use == GmUse::kInOut;
}

}  // namespace

GmTable::GmTable(std::vector<GmTensor> tensors) {
    for (const GmTensor& tensor : tensors) {
        if (tensor.data != nullptr && tensor.bytes > 0) tensors_.push_back(tensor);
    }
    std::sort(tensors_.begin(), tensors_.end(),
              [](const GmTensor& a, const GmTensor& b) { return Begin(a) < Begin(b); });
}

uint32_t GmTable::Find(uint64_t address) const {
    const auto holds = [address](const GmTensor& tensor) {
        return address >= Begin(tensor) && address - Begin(tensor) < tensor.bytes;
    };
    if (last_ < Size() && holds(tensors_[last_])) return last_;
    const auto after =
        std::upper_bound(tensors_.begin(), tensors_.end(), address,
                         [](uint64_t at, const GmTensor& tensor) { return at < Begin(tensor); });
    if (after == tensors_.begin() || !holds(*(after - 1))) return kNone;
    last_ = static_cast<uint32_t>(after - tensors_.begin()) - 1;
    return last_;
}

uint32_t GmTable::Before(uint64_t address) const {
    uint32_t index = 0;
    while (index + 1 < Size() && Begin(tensors_[index + 1]) <= address) ++index;
    return index;
}

std::vector<std::vector<uint8_t>> GmTable::SaveWritten() const {
    std::vector<std::vector<uint8_t>> saved(tensors_.size());
    for (uint32_t i = 0; i < Size(); ++i) {
        if (!IsWritten(tensors_[i])) continue;
        saved[i].assign(Bytes(tensors_[i]), Bytes(tensors_[i]) + tensors_[i].bytes);
    }
    return saved;
}

void GmTable::Restore(const std::vector<std::vector<uint8_t>>& saved) const {
    for (uint32_t i = 0; i < Size(); ++i) {
        if (!saved[i].empty()) std::memcpy(Bytes(tensors_[i]), saved[i].data(), saved[i].size());
    }
}

void GmTable::Poison(uint8_t byte) const {
    for (const GmTensor& tensor : tensors_) {
        if (tensor.use == GmUse::kOut || tensor.use == GmUse::kWorkspace) {
            std::memset(Bytes(tensor), byte, tensor.bytes);
        }
    }
}

void NameGm(std::initializer_list<GmTensor> tensors) { tNamed = tensors; }

void NameGm(std::vector<GmTensor> tensors) { tNamed = std::move(tensors); }

GmTable TakeNamedGm() { return GmTable(std::exchange(tNamed, {})); }

}  // namespace check
}  // namespace ascend_twin
