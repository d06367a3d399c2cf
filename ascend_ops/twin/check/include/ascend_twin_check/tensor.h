// GlobalTensor and LocalTensor: typed views that know the bytes they stand for.
#ifndef ASCEND_TWIN_CHECK_TENSOR_H_
#define ASCEND_TWIN_CHECK_TENSOR_H_

#include <cstdint>

#include "ascend_twin_check/operation.h"

namespace AscendC {

template <typename T>
class GlobalTensor {
  public:
    using PrimType = T;

    void SetGlobalBuffer(T* buffer) {
        data_ = buffer;
        end_ = nullptr;
    }
    void SetGlobalBuffer(T* buffer, uint64_t elems) {
        data_ = buffer;
        end_ = buffer + elems;
    }

    GlobalTensor operator[](uint64_t offset) const {
        GlobalTensor result = *this;
        result.data_ += offset;
        return result;
    }

    T GetValue(uint64_t offset,
               ascend_twin::check::Site site = ascend_twin::check::Site::Here()) const {
        using namespace ascend_twin::check;
        Call call("GlobalTensor::GetValue", PIPE_S, RoleKind::kAny, site);
        call.Read((*this)[offset].Bytes(sizeof(T)));
        if (!call.RunScalar()) return T();
        const T value = data_[offset];
        call.EndScalar();
        return value;
    }
    void SetValue(uint64_t offset, T value,
                  ascend_twin::check::Site site = ascend_twin::check::Site::Here()) const {
        using namespace ascend_twin::check;
        Call call("GlobalTensor::SetValue", PIPE_S, RoleKind::kAny, site);
        call.Write((*this)[offset].Bytes(sizeof(T)));
        if (!call.RunScalar()) return;
        data_[offset] = value;
        call.EndScalar();
    }
    T* GetPhyAddr() const { return data_; }

    // For the twin's own calls: the first `bytes` of it, and the same as the fast twin has it.
    ascend_twin::check::Access Bytes(uint64_t bytes) const {
        ascend_twin::check::Access access;
        access.space = ascend_twin::check::Space::kGm;
        access.begin = reinterpret_cast<uint64_t>(data_);
        access.end = reinterpret_cast<uint64_t>(end_);
        access.run = bytes;
        return access;
    }
    ascend_twin_literal::GlobalTensor<T> Literal() const {
        ascend_twin_literal::GlobalTensor<T> tensor;
        tensor.SetGlobalBuffer(data_);
        return tensor;
    }

  private:
    T* data_ = nullptr;
    T* end_ = nullptr;
};

template <typename T>
class LocalTensor {
  public:
    using PrimType = T;

    LocalTensor() = default;
    LocalTensor(TPosition position, uint64_t address, uint64_t elems,
                ascend_twin::check::Site site = ascend_twin::check::Site::Here())
        : address_(address),
          elems_(elems),
          position_(position),
          declaration_(ascend_twin::check::Declare(position, address, elems * sizeof(T), site)) {}

    LocalTensor operator[](uint32_t offset) const {
        LocalTensor result = *this;
        result.address_ += static_cast<uint64_t>(offset) * sizeof(T);
        result.elems_ -= offset;  // negative behind the end: found when it is used
        return result;
    }

    template <typename U>
    LocalTensor<U> ReinterpretCast() const {
        LocalTensor<U> result;
        result.address_ = address_;
        result.elems_ = elems_ * static_cast<int64_t>(sizeof(T)) / static_cast<int64_t>(sizeof(U));
        result.position_ = position_;
        result.declaration_ = declaration_;
        return result;
    }

    T GetValue(uint32_t offset,
               ascend_twin::check::Site site = ascend_twin::check::Site::Here()) const {
        using namespace ascend_twin::check;
        Call call("LocalTensor::GetValue", PIPE_S, RoleKind::kAny, site);
        call.Read((*this)[offset].Bytes(sizeof(T)));
        RequireScalarAccess(&call);
        if (!call.RunScalar()) return T();
        const T value = Literal().GetValue(offset);
        call.EndScalar();
        return value;
    }
    void SetValue(uint32_t offset, T value,
                  ascend_twin::check::Site site = ascend_twin::check::Site::Here()) const {
        using namespace ascend_twin::check;
        Call call("LocalTensor::SetValue", PIPE_S, RoleKind::kAny, site);
        call.Write((*this)[offset].Bytes(sizeof(T)));
        RequireScalarAccess(&call);
        if (!call.RunScalar()) return;
        Literal().SetValue(offset, value);
        call.EndScalar();
    }
    uint32_t GetSize() const { return static_cast<uint32_t>(elems_); }
    TPosition GetPosition() const { return position_; }

    // For the twin's own calls, as in GlobalTensor.
    ascend_twin::check::Access Bytes(uint64_t bytes) const {
        ascend_twin::check::Access access;
        access.space = ascend_twin::check::SpaceOf(position_);
        access.declaration = declaration_;
        access.begin = address_;
        access.end = address_ + static_cast<uint64_t>(elems_ * static_cast<int64_t>(sizeof(T)));
        access.run = bytes;
        return access;
    }
    ascend_twin_literal::LocalTensor<T> Literal() const {
        return {position_, static_cast<uint32_t>(address_), static_cast<uint32_t>(elems_)};
    }

  private:
    template <typename U>
    friend class LocalTensor;

    // The scalar unit reaches UB alone.
    void RequireScalarAccess(ascend_twin::check::Call* call) const {
        call->InSpace("the tensor", position_, ascend_twin::check::Space::kUb);
    }

    uint64_t address_ = 0;
    int64_t elems_ = 0;
    TPosition position_ = TPosition::VECCALC;
    uint16_t declaration_ = 0;
};

}  // namespace AscendC

#endif  // ASCEND_TWIN_CHECK_TENSOR_H_
