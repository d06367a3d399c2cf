// A parameter as wide as the kernel computed it. The hardware keeps only so many of its bits and
// says nothing; here the rest is still there to be complained about.
#ifndef ASCEND_TWIN_CHECK_FIELD_H_
#define ASCEND_TWIN_CHECK_FIELD_H_

#include <cstdint>
#include <limits>
#include <type_traits>

namespace ascend_twin {
namespace check {

// Narrow: the type that the parameter has on hardware, which is also what reading it gives.
template <typename Narrow>
class Field {
  public:
    template <typename V, typename = std::enable_if_t<std::is_integral_v<V>>>
    constexpr Field(V value) : value_(static_cast<int64_t>(value)) {}

    template <typename Other>
    constexpr Field(const Field<Other>& other) : value_(other.Wide()) {}

    constexpr operator Narrow() const { return static_cast<Narrow>(value_); }
    constexpr int64_t Wide() const { return value_; }
    constexpr bool Fits() const {
        return value_ >= static_cast<int64_t>(std::numeric_limits<Narrow>::min()) &&
               value_ <= static_cast<int64_t>(std::numeric_limits<Narrow>::max());
    }

  private:
    int64_t value_;
};

}  // namespace check
}  // namespace ascend_twin

#endif  // ASCEND_TWIN_CHECK_FIELD_H_
