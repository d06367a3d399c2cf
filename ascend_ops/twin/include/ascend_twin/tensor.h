// GlobalTensor and LocalTensor: typed views of GM and of a core's memories.
#ifndef ASCEND_TWIN_TENSOR_H_
#define ASCEND_TWIN_TENSOR_H_

#include <cstdint>
#include <type_traits>

#include "ascend_twin/core.h"
#include "ascend_twin/product.h"

namespace ascend_twin {

constexpr bool IsL0Input(AscendC::TPosition position) {
    return position == AscendC::TPosition::A2 || position == AscendC::TPosition::B2;
}

// First byte that a tensor at `position` and byte address `address` starts at. L0A and L0B are
// float panels with one float an element of T.
template <typename T>
inline uint8_t* LocalAddress(AscendC::TPosition position, uint32_t address) {
    const Context& context = CurrentContext();
    CoreMemory* memory = context.memory;
    switch (position) {
        case AscendC::TPosition::A1:
        case AscendC::TPosition::B1:
        case AscendC::TPosition::C1:
            return memory->l1 + address;
        case AscendC::TPosition::A2:
            return reinterpret_cast<uint8_t*>(memory->l0a + address / sizeof(T));
        case AscendC::TPosition::B2:
            return reinterpret_cast<uint8_t*>(memory->l0b.panels + address / sizeof(T));
        case AscendC::TPosition::CO1:
            return memory->l0c + address;
        default:
            return memory->ub[context.role == Role::kAiv1] + address;
    }
}

}  // namespace ascend_twin

namespace AscendC {

template <typename T>
class GlobalTensor {
  public:
    using PrimType = T;

    void SetGlobalBuffer(T* buffer) { data_ = buffer; }
    void SetGlobalBuffer(T* buffer, uint64_t /*elems*/) { data_ = buffer; }

    GlobalTensor operator[](uint64_t offset) const {
        GlobalTensor result;
        result.data_ = data_ + offset;
        return result;
    }

    T GetValue(uint64_t offset) const { return data_[offset]; }
    void SetValue(uint64_t offset, T value) const { data_[offset] = value; }
    T* GetPhyAddr() const { return data_; }

  private:
    T* data_ = nullptr;
};

template <typename T>
class LocalTensor {
  public:
    using PrimType = T;

    LocalTensor() = default;
    LocalTensor(TPosition position, uint32_t address, uint32_t elems)
        : data_(ascend_twin::LocalAddress<T>(position, address)),
          elems_(elems),
          position_(position) {}

    LocalTensor operator[](uint32_t offset) const {
        LocalTensor result = *this;
        result.data_ += static_cast<uint64_t>(offset) * ElemBytes();
        result.elems_ -= offset;
        return result;
    }

    template <typename U>
    LocalTensor<U> ReinterpretCast() const {
        LocalTensor<U> result;
        result.data_ = data_;
        result.elems_ =
            static_cast<uint32_t>(static_cast<uint64_t>(elems_) * sizeof(T) / sizeof(U));
        result.position_ = position_;
        return result;
    }

    T GetValue(uint32_t offset) const {
        Settle();
        return Data()[offset];
    }
    void SetValue(uint32_t offset, T value) const {
        Settle();
        if (position_ == TPosition::A1 || position_ == TPosition::B1) {
            ascend_twin::BeforeL1Write(Data() + offset, Data() + offset + 1);
        }
        Data()[offset] = value;
    }
    uint32_t GetSize() const { return elems_; }
    TPosition GetPosition() const { return position_; }

    // For the twin's own calls: elements in UB, L1 and L0C; float panels in L0A and L0B.
    T* Data() const { return reinterpret_cast<T*>(data_); }
    float* Panel() const { return reinterpret_cast<float*>(data_); }

  private:
    template <typename U>
    friend class LocalTensor;

    // A product that is still to be computed into L0C is computed before anyone looks.
    void Settle() const {
        if (position_ == TPosition::CO1) ascend_twin::FlushProduct();
    }

    uint32_t ElemBytes() const {
        return ascend_twin::IsL0Input(position_) ? sizeof(float) : sizeof(T);
    }

    uint8_t* data_ = nullptr;
    uint32_t elems_ = 0;
    TPosition position_ = TPosition::VECCALC;
};

}  // namespace AscendC

#endif  // ASCEND_TWIN_TENSOR_H_
