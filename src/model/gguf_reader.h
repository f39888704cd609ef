// Reads the header of a GGUF file, byte by byte: little-endian values from a span, never beyond its
// end, and errors that say where.
#ifndef EFEDLLM_MODEL_GGUF_READER_H_
#define EFEDLLM_MODEL_GGUF_READER_H_

#include <cstdint>
#include <cstring>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/status_macros.h"

namespace efedllm {

inline constexpr absl::string_view kGgufDamaged = "; the file is damaged, download it again";

inline absl::Status MalformedGguf(uint64_t at, absl::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat("GGUF, byte ", at, ": ", message, kGgufDamaged));
}

// Borrows the bytes. what: named in errors.
class GgufReader {
 public:
  static constexpr uint64_t kMaxNameBytes = 65535;  // the format's own limit for keys

  explicit GgufReader(absl::Span<const uint8_t> bytes) : bytes_(bytes) {}

  uint64_t offset() const { return offset_; }
  uint64_t remaining() const { return bytes_.size() - offset_; }

  template <class T>
  absl::StatusOr<T> Read(absl::string_view what) {
    RETURN_IF_ERROR(Need(sizeof(T), what));
    T value;
    std::memcpy(&value, bytes_.data() + offset_, sizeof(T));
    offset_ += sizeof(T);
    return value;
  }

  absl::StatusOr<absl::string_view> ReadString(absl::string_view what) {
    ASSIGN_OR_RETURN(const uint64_t size, Read<uint64_t>(what));
    RETURN_IF_ERROR(Need(size, what));
    absl::string_view text(reinterpret_cast<const char*>(bytes_.data() + offset_), size);
    offset_ += size;
    return text;
  }

  absl::StatusOr<absl::string_view> ReadName(absl::string_view what) {
    const uint64_t at = offset_;
    ASSIGN_OR_RETURN(const absl::string_view name, ReadString(what));
    if (name.empty() || name.size() > kMaxNameBytes) {
      return MalformedGguf(
          at, absl::StrCat(what, " has ", name.size(), " bytes, not 1 to ", kMaxNameBytes));
    }
    return name;
  }

  // count elements of at least min_bytes each must still be in the file.
  absl::Status NeedElements(uint64_t count, uint64_t min_bytes, absl::string_view what) const {
    if (count <= remaining() / min_bytes) return absl::OkStatus();
    return MalformedGguf(offset_, absl::StrCat(what, ": ", count, " elements can't be in the ",
                                               remaining(), " bytes that are left"));
  }

 private:
  absl::Status Need(uint64_t size, absl::string_view what) const {
    if (size <= remaining()) return absl::OkStatus();
    return MalformedGguf(offset_, absl::StrCat("truncated: ", what, " takes ", size, " bytes and ",
                                               remaining(), " are left"));
  }

  const absl::Span<const uint8_t> bytes_;
  uint64_t offset_ = 0;
};

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_GGUF_READER_H_
