#include "model/safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "model/hf_json.h"

namespace efedllm {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 32u << 20;  // models of a hundred layers have 1 MB
constexpr size_t kMaxDimensions = 4;

absl::Status Malformed(absl::string_view message) {
  return absl::InvalidArgumentError(
      absl::StrCat("safetensors: ", message, "; the file is damaged, download it again"));
}

// Bytes of one value. 0: a type that we don't know, and can't check.
uint64_t ValueBytes(absl::string_view dtype) {
  for (const absl::string_view type : {"F64", "I64", "U64"}) {
    if (dtype == type) return 8;
  }
  for (const absl::string_view type : {"F32", "I32", "U32"}) {
    if (dtype == type) return 4;
  }
  for (const absl::string_view type : {"F16", "BF16", "I16", "U16"}) {
    if (dtype == type) return 2;
  }
  for (const absl::string_view type : {"I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"}) {
    if (dtype == type) return 1;
  }
  return 0;
}

absl::StatusOr<std::vector<uint64_t>> ReadShape(const json& entry, absl::string_view label) {
  const json* shape = FindJson(entry, "shape");
  if (shape == nullptr || !shape->is_array() || shape->size() > kMaxDimensions) {
    return Malformed(absl::StrCat(label, " has no \"shape\" of up to ", kMaxDimensions, " sizes"));
  }
  std::vector<uint64_t> sizes;
  uint64_t values = 1;
  for (const json& size : *shape) {
    if (!size.is_number_unsigned() || size.get<uint64_t>() == 0) {
      return Malformed(absl::StrCat(label, ": its shape has a size that is not 1 or more"));
    }
    sizes.push_back(size.get<uint64_t>());
    if (values > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) / 8 / sizes.back()) {
      return Malformed(absl::StrCat(label, ": its size overflows"));
    }
    values *= sizes.back();
  }
  return sizes;
}

// Sets the tensor's bytes.
absl::Status Place(const json& entry, absl::Span<const uint8_t> data, absl::string_view label,
                   SafetensorsTensor& tensor) {
  const json* offsets = FindJson(entry, "data_offsets");
  if (offsets == nullptr || !offsets->is_array() || offsets->size() != 2 ||
      !(*offsets)[0].is_number_unsigned() || !(*offsets)[1].is_number_unsigned()) {
    return Malformed(absl::StrCat(label, " has no \"data_offsets\" of two numbers"));
  }
  const auto begin = (*offsets)[0].get<uint64_t>();
  const auto end = (*offsets)[1].get<uint64_t>();
  if (begin > end || end > data.size()) {
    return Malformed(absl::StrCat(label, " lies at [", begin, ", ", end,
                                  ") of the data, which has ", data.size(), " bytes"));
  }
  uint64_t needed = ValueBytes(tensor.dtype);
  for (const uint64_t size : tensor.shape) needed *= size;
  if (needed != 0 && needed != end - begin) {
    return Malformed(
        absl::StrCat(label, " has ", end - begin, " bytes, but its shape needs ", needed));
  }
  tensor.bytes = data.subspan(begin, end - begin);
  return absl::OkStatus();
}

absl::Status CheckNoHoles(absl::Span<const uint8_t> data,
                          const std::vector<SafetensorsTensor>& tensors) {
  const uint8_t* expected = data.data();
  for (const SafetensorsTensor& tensor : tensors) {
    if (tensor.bytes.data() != expected) {
      return Malformed(absl::StrCat("tensor ", Printable(tensor.name), " begins at byte ",
                                    tensor.bytes.data() - data.data(), " of the data, not at ",
                                    expected - data.data(), " behind the one before"));
    }
    expected += tensor.bytes.size();
  }
  if (expected == data.data() + data.size()) return absl::OkStatus();
  return Malformed(
      absl::StrCat("the tensors take ", expected - data.data(), " bytes of ", data.size()));
}

}  // namespace

absl::StatusOr<Safetensors> ReadSafetensors(absl::Span<const uint8_t> bytes) {
  uint64_t header_bytes = 0;
  if (bytes.size() < sizeof(header_bytes)) return Malformed("it is shorter than 8 bytes");
  std::memcpy(&header_bytes, bytes.data(), sizeof(header_bytes));
  const absl::Span<const uint8_t> behind = bytes.subspan(sizeof(header_bytes));
  if (header_bytes > behind.size() || header_bytes > kMaxHeaderBytes) {
    return Malformed(absl::StrCat("a header of ", header_bytes, " bytes in a file of ",
                                  bytes.size(), " (at most ", kMaxHeaderBytes, " are allowed)"));
  }
  const absl::string_view text(reinterpret_cast<const char*>(behind.data()), header_bytes);
  absl::StatusOr<json> header = ParseJsonObject(text);
  if (!header.ok()) return Malformed(absl::StrCat("the header is ", header.status().message()));

  Safetensors file;
  file.header = bytes.first(sizeof(header_bytes) + header_bytes);
  const absl::Span<const uint8_t> data = behind.subspan(header_bytes);
  for (const auto& [name, entry] : header->items()) {
    if (name == "__metadata__") continue;
    const std::string label = absl::StrCat("tensor ", Printable(name));
    SafetensorsTensor tensor;
    tensor.name = name;
    ASSIGN_OR_RETURN(tensor.dtype, JsonStringOr(entry, "dtype", ""));
    ASSIGN_OR_RETURN(tensor.shape, ReadShape(entry, label));
    RETURN_IF_ERROR(Place(entry, data, label, tensor));
    file.tensors.push_back(std::move(tensor));
  }
  // Empty ones, of types unknown to us, stand before the one that begins where they do.
  std::sort(file.tensors.begin(), file.tensors.end(),
            [](const SafetensorsTensor& a, const SafetensorsTensor& b) {
              return std::pair(a.bytes.data(), a.bytes.size()) <
                     std::pair(b.bytes.data(), b.bytes.size());
            });
  RETURN_IF_ERROR(CheckNoHoles(data, file.tensors));
  return file;
}

}  // namespace efedllm
