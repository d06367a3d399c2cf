// The GM buffers of a launch by name: where an access may go, and what it is called in a finding.
#ifndef ASCEND_TWIN_CHECK_GM_TABLE_H_
#define ASCEND_TWIN_CHECK_GM_TABLE_H_

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

namespace ascend_twin {
namespace check {

// kIn is only read, and kOut is written whole. kWorkspace starts with rubbish, as kOut does.
enum class GmUse : uint8_t { kIn, kOut, kInOut, kWorkspace };

struct GmTensor {
    const char* name;
    const void* data;
    uint64_t bytes;
    GmUse use;
};

class GmTable {
  public:
    static constexpr uint32_t kNone = ~0u;

    GmTable() = default;
    explicit GmTable(std::vector<GmTensor> tensors);

    bool Empty() const { return tensors_.empty(); }
    uint32_t Size() const { return static_cast<uint32_t>(tensors_.size()); }
    const GmTensor& operator[](uint32_t index) const { return tensors_[index]; }
    // The tensor that the byte at `address` belongs to, or kNone.
    uint32_t Find(uint64_t address) const;
    // The tensor that ends last before `address` or, failing that, the first.
    uint32_t Before(uint64_t address) const;

    // Copies of what is written, to begin again from and to compare.
    std::vector<std::vector<uint8_t>> SaveWritten() const;
    void Restore(const std::vector<std::vector<uint8_t>>& saved) const;
    // Fills what a kernel may not rely on.
    void Poison(uint8_t byte) const;

  private:
    std::vector<GmTensor> tensors_;  // by address
    mutable uint32_t last_ = 0;
};

// The tensors of the calling thread's next launch.
void NameGm(std::initializer_list<GmTensor> tensors);
void NameGm(std::vector<GmTensor> tensors);
GmTable TakeNamedGm();

}  // namespace check
}  // namespace ascend_twin

#endif  // ASCEND_TWIN_CHECK_GM_TABLE_H_
