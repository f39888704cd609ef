// What a field of a peer's message may be. For this folder.
#ifndef EFEDLLM_WIRE_FIELD_CHECKS_H_
#define EFEDLLM_WIRE_FIELD_CHECKS_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace efedllm {

// No machine and no counter comes near it, and sums of thousands stay far from overflow.
inline constexpr uint64_t kMaxCount = uint64_t{1} << 48;

// All return InvalidArgument that names the field.
absl::Status WrongField(absl::string_view field, absl::string_view why);
absl::Status CheckRange(absl::string_view field, uint64_t value, uint64_t least, uint64_t most);
absl::Status CheckText(absl::string_view field, absl::string_view text, size_t max_size);
// Finite, not negative, nothing that a machine or a network can't do.
absl::Status CheckRate(absl::string_view field, double value);
// "HOST:PORT", "[V6]:PORT" or ":PORT".
absl::Status CheckAddress(absl::string_view field, absl::string_view address);

}  // namespace efedllm

#endif  // EFEDLLM_WIRE_FIELD_CHECKS_H_
