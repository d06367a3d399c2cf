// GlobalTensor and LocalTensor: typed views of GM and of a core's memories.
#ifndef ASCEND_TWIN_TENSOR_H_
#define ASCEND_TWIN_TENSOR_H_

#include <cstdint>
#include <type_traits>

#include "ascend_twin/core.h"
#include "ascend_twin/l1_views.h"
#include "ascend_twin/product.h"

namespace ascend_twin {

// The pending copy to the running role's UB.
inline PendingCopy* ToUb() {
    const Context& context = CurrentContext();
    return &context.memory->toUb[static_cast<uint32_t>(context.role)];
}

// Before the running role writes to GM: what it has still to copy from there is copied.
inline void BeforeGmWrite(const void* begin, uint64_t size) { ToUb()->BeforeGmWrite(begin, size); }

constexpr bool IsL1(AscendC::TPosition position) {
    return position == AscendC::TPosition::A1 || position == AscendC::TPosition::B1;
}

constexpr bool IsL0Input(AscendC::TPosition position) {
    return position == AscendC::TPosition::A2 || position == AscendC::TPosition::B2;
}

// First byte that a tensor at `position` and byte address `address` starts at. L0A and L0B are
// float panels with one float an element of T; of integers they are bytes, which nobody reads.
template <typename T>
inline uint8_t* LocalAddress(AscendC::TPosition position, uint32_t address) {
    const Context& context = CurrentContext();
    CoreMemory* memory = context.memory;
    constexpr uint32_t floats = sizeof(T) == 1 ? 4 : sizeof(T);  // bytes of an address a float
    switch (position) {
        case AscendC::TPosition::A1:
        case AscendC::TPosition::B1:
        case AscendC::TPosition::C1:
            return memory->l1 + address;
        case AscendC::TPosition::A2:
            return reinterpret_cast<uint8_t*>(memory->l0a + address / floats);
        case AscendC::TPosition::B2:
            return reinterpret_cast<uint8_t*>(memory->l0b.panels + address / floats);
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

    void SetGlobalBuffer(T* buffer) {
        data_ = buffer;
        isInput_ = ascend_twin::IsInput(buffer);
    }
    void SetGlobalBuffer(T* buffer, uint64_t /*elems*/) { SetGlobalBuffer(buffer); }

    GlobalTensor operator[](uint64_t offset) const {
        GlobalTensor result = *this;
        result.data_ += offset;
        return result;
    }

    T GetValue(uint64_t offset) const { return data_[offset]; }
    void SetValue(uint64_t offset, T value) const {
        ascend_twin::BeforeGmWrite(data_ + offset, sizeof(T));
        data_[offset] = value;
    }
    T* GetPhyAddr() const { return data_; }

    // Whether nobody writes there during this launch.
    bool IsInput() const { return isInput_; }

  private:
    T* data_ = nullptr;
    bool isInput_ = false;
};

template <typename T>
class LocalTensor {
  public:
    using PrimType = T;

    LocalTensor() = default;
    LocalTensor(TPosition position, uint32_t address, uint32_t elems)
        : data_(ascend_twin::LocalAddress<T>(position, address)),
          toUb_(ascend_twin::ToUb()),
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
        result.toUb_ = toUb_;
        result.elems_ =
            static_cast<uint32_t>(ascend_twin::BytesOf<T>(elems_) * 2 / ascend_twin::BytesOf<U>(2));
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

    // For the twin's own calls: elements in UB, L1 and L0C, after what waits to be copied there.
    T* Data() const {
        const uint64_t bytes = ascend_twin::BytesOf<T>(elems_);
        if (ascend_twin::IsL1(position_)) {
            ascend_twin::SettleL1(ascend_twin::CurrentContext().memory, data_, bytes);
        } else if (toUb_->Overlaps(data_, bytes)) {
            toUb_->Make();
        }
        return reinterpret_cast<T*>(data_);
    }
    // Of L1, where fractals may be views.
    T* FirstFractal() const { return reinterpret_cast<T*>(data_); }
    // `count` elements to read: those of a pending copy where they are just what it brings.
    const T* Source(uint32_t count) const {
        if (toUb_->to == data_ && toUb_->bytes == ascend_twin::BytesOf<T>(count)) {
            return reinterpret_cast<const T*>(toUb_->from);
        }
        return Data();
    }
    // `count` elements to overwrite, after the sources of the call have been asked for: of a
    // pending copy nothing is left then.
    T* Target(uint32_t count) const {
        if (toUb_->to != data_ || toUb_->bytes > ascend_twin::BytesOf<T>(count)) {
            return Data();
        }
        toUb_->to = nullptr;
        return reinterpret_cast<T*>(data_);
    }
    // `count` elements from GM, at once or when they are looked at.
    void CopyIn(const T* from, uint32_t count) const {
        T* to = Target(count);
        if (position_ < TPosition::VECIN || count * sizeof(T) < kWorthWaiting) {
            std::memcpy(to, from, count * sizeof(T));
            return;
        }
        toUb_->Make();
        toUb_->to = data_;
        toUb_->from = reinterpret_cast<const uint8_t*>(from);
        toUb_->bytes = count * sizeof(T);
    }
    // Of L0A and L0B: floats, whatever T is; of integers a place that only tells fractals apart.
    float* Panel() const { return reinterpret_cast<float*>(data_); }

  private:
    static constexpr uint32_t kWorthWaiting = 1024;  // bytes

    template <typename U>
    friend class LocalTensor;

    // A product that is still to be computed into L0C is computed before anyone looks.
    void Settle() const {
        if (position_ == TPosition::CO1) ascend_twin::FlushProduct();
    }

    uint32_t ElemBytes() const {
        return ascend_twin::IsL0Input(position_) && sizeof(T) > 1 ? sizeof(float) : sizeof(T);
    }

    uint8_t* data_ = nullptr;
    ascend_twin::PendingCopy* toUb_ = nullptr;
    uint32_t elems_ = 0;
    TPosition position_ = TPosition::VECCALC;
};

}  // namespace AscendC

#endif  // ASCEND_TWIN_TENSOR_H_
