#include "model/gguf.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "model/gguf_reader.h"
#include "tensor/dtype.h"

namespace efedllm {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
// No real model comes near; they keep what we allocate far below what a hostile file may ask for.
constexpr uint64_t kMaxValues = 100'000;
constexpr uint64_t kMaxTensors = 1'000'000;
constexpr uint64_t kMaxArrayElements = 16u << 20;  // all arrays of a file together
constexpr uint64_t kMaxDimensions = 4;
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kMaxAlignment = 1u << 20;

enum ValueType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

template <class T, class Wide>
absl::StatusOr<MetadataArray> ReadNumbers(GgufReader& reader, uint64_t count) {
  RETURN_IF_ERROR(reader.NeedElements(count, sizeof(T), "array"));
  std::vector<Wide> values;
  values.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(const T value, reader.Read<T>("array element"));
    values.push_back(static_cast<Wide>(value));
  }
  return MetadataArray{MetadataArray::Numbers(std::move(values))};
}

absl::StatusOr<MetadataArray> ReadStringArray(GgufReader& reader, uint64_t count) {
  RETURN_IF_ERROR(reader.NeedElements(count, sizeof(uint64_t), "string array"));
  std::vector<absl::string_view> strings;
  strings.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(const absl::string_view text, reader.ReadString("string"));
    strings.push_back(text);
  }
  return MetadataArray{std::move(strings)};
}

// elements_left: how many more array elements this file may have.
absl::StatusOr<MetadataArray> ReadArray(GgufReader& reader, uint64_t& elements_left) {
  const uint64_t at = reader.offset();
  ASSIGN_OR_RETURN(const uint32_t type, reader.Read<uint32_t>("array type"));
  ASSIGN_OR_RETURN(const uint64_t count, reader.Read<uint64_t>("array length"));
  if (count > elements_left) {
    return MalformedGguf(at, absl::StrCat("array of ", count, " elements; a file may have ",
                                          kMaxArrayElements, " in all"));
  }
  elements_left -= count;
  switch (type) {
    case kUint8:
      return ReadNumbers<uint8_t, uint64_t>(reader, count);
    case kInt8:
      return ReadNumbers<int8_t, int64_t>(reader, count);
    case kUint16:
      return ReadNumbers<uint16_t, uint64_t>(reader, count);
    case kInt16:
      return ReadNumbers<int16_t, int64_t>(reader, count);
    case kUint32:
      return ReadNumbers<uint32_t, uint64_t>(reader, count);
    case kInt32:
      return ReadNumbers<int32_t, int64_t>(reader, count);
    case kFloat32:
      return ReadNumbers<float, double>(reader, count);
    case kBool:
      return ReadNumbers<uint8_t, bool>(reader, count);
    case kString:
      return ReadStringArray(reader, count);
    case kArray:
      return MalformedGguf(at, "an array of arrays, which no model has");
    case kUint64:
      return ReadNumbers<uint64_t, uint64_t>(reader, count);
    case kInt64:
      return ReadNumbers<int64_t, int64_t>(reader, count);
    case kFloat64:
      return ReadNumbers<double, double>(reader, count);
    default:
      return MalformedGguf(at, absl::StrCat("array of unknown type ", type));
  }
}

template <class T, class Wide>
absl::StatusOr<MetadataValue> ReadScalar(GgufReader& reader) {
  ASSIGN_OR_RETURN(const T value, reader.Read<T>("value"));
  return MetadataValue(static_cast<Wide>(value));
}

absl::StatusOr<MetadataValue> ReadValue(GgufReader& reader, uint64_t& elements_left) {
  const uint64_t at = reader.offset();
  ASSIGN_OR_RETURN(const uint32_t type, reader.Read<uint32_t>("value type"));
  switch (type) {
    case kUint8:
      return ReadScalar<uint8_t, uint64_t>(reader);
    case kInt8:
      return ReadScalar<int8_t, int64_t>(reader);
    case kUint16:
      return ReadScalar<uint16_t, uint64_t>(reader);
    case kInt16:
      return ReadScalar<int16_t, int64_t>(reader);
    case kUint32:
      return ReadScalar<uint32_t, uint64_t>(reader);
    case kInt32:
      return ReadScalar<int32_t, int64_t>(reader);
    case kFloat32:
      return ReadScalar<float, double>(reader);
    case kBool:
      return ReadScalar<uint8_t, bool>(reader);
    case kString: {
      ASSIGN_OR_RETURN(const absl::string_view text, reader.ReadString("string value"));
      return MetadataValue(text);
    }
    case kArray: {
      ASSIGN_OR_RETURN(MetadataArray array, ReadArray(reader, elements_left));
      return MetadataValue(std::move(array));
    }
    case kUint64:
      return ReadScalar<uint64_t, uint64_t>(reader);
    case kInt64:
      return ReadScalar<int64_t, int64_t>(reader);
    case kFloat64:
      return ReadScalar<double, double>(reader);
    default:
      return MalformedGguf(at, absl::StrCat("value of unknown type ", type));
  }
}

absl::Status CheckMagicAndVersion(GgufReader& reader) {
  ASSIGN_OR_RETURN(const uint32_t magic, reader.Read<uint32_t>("magic"));
  if (magic != kMagic) {
    const absl::string_view magic_text(reinterpret_cast<const char*>(&magic), sizeof(magic));
    return absl::InvalidArgumentError(absl::StrCat(
        "not a GGUF file: it begins with \"", Printable(magic_text),
        "\"; give a model file in GGUF format (a text file here is often a failed download)"));
  }
  ASSIGN_OR_RETURN(const uint32_t version, reader.Read<uint32_t>("version"));
  if (version == 2 || version == 3) return absl::OkStatus();
  if (version != 0 && (version & 0xffffu) == 0) {
    return absl::InvalidArgumentError(
        "GGUF, byte 4: a big-endian file; convert the model anew as little-endian");
  }
  return absl::InvalidArgumentError(
      absl::StrCat("GGUF, byte 4: version ", version,
                   "; versions 2 and 3 are supported, convert the model anew"));
}

struct TensorPlace {
  ModelTensor tensor;
  uint64_t info_offset = 0;  // where the tensor's entry stands in the file
  uint64_t data_offset = 0;  // relative to the data section
};

absl::StatusOr<TensorPlace> ReadTensorInfo(GgufReader& reader) {
  TensorPlace place;
  place.info_offset = reader.offset();
  ASSIGN_OR_RETURN(place.tensor.name, reader.ReadName("tensor name"));
  const std::string label = absl::StrCat("tensor ", Printable(place.tensor.name));
  ASSIGN_OR_RETURN(const uint32_t dimensions, reader.Read<uint32_t>(label));
  if (dimensions == 0 || dimensions > kMaxDimensions) {
    return MalformedGguf(place.info_offset,
                         absl::StrCat(label, " has ", dimensions, " dimensions, not 1 to 4"));
  }
  uint64_t values = 1;
  for (uint32_t i = 0; i < dimensions; ++i) {
    ASSIGN_OR_RETURN(const uint64_t size, reader.Read<uint64_t>(label));
    if (size == 0) {
      return MalformedGguf(place.info_offset, absl::StrCat(label, ": dimension ", i, " is 0"));
    }
    // As ggml: the number of values must fit a signed 64-bit integer.
    if (values > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) / size) {
      return MalformedGguf(place.info_offset, absl::StrCat(label, ": its size overflows"));
    }
    values *= size;
    place.tensor.shape.push_back(size);
  }
  ASSIGN_OR_RETURN(place.tensor.gguf_type, reader.Read<uint32_t>(label));
  ASSIGN_OR_RETURN(place.data_offset, reader.Read<uint64_t>(label));
  return place;
}

// Bytes of the tensor's data; nullopt where the type is not known to us.
absl::StatusOr<std::optional<uint64_t>> DataBytes(const TensorPlace& place) {
  const ModelTensor& tensor = place.tensor;
  const std::optional<DType> dtype = DTypeFromGguf(tensor.gguf_type);
  if (!dtype) return std::optional<uint64_t>();
  std::optional<uint64_t> bytes = RowBytes(*dtype, tensor.shape[0]);
  for (size_t i = 1; bytes && i < tensor.shape.size(); ++i) {
    if (*bytes > std::numeric_limits<uint64_t>::max() / tensor.shape[i]) {
      bytes = std::nullopt;
    } else {
      *bytes *= tensor.shape[i];
    }
  }
  if (!bytes) {
    return MalformedGguf(place.info_offset,
                         absl::StrCat("tensor ", Printable(tensor.name), ": rows of ",
                                      tensor.shape[0], " values are not whole blocks of ",
                                      std::string(DTypeName(*dtype)), ", or its size overflows"));
  }
  return bytes;
}

// Sets the tensors' bytes.
absl::Status PlaceTensors(absl::Span<const uint8_t> data, uint64_t alignment,
                          std::vector<TensorPlace>& places) {
  for (TensorPlace& place : places) {
    const std::string label = absl::StrCat("tensor ", Printable(place.tensor.name));
    if (place.data_offset % alignment != 0) {
      return MalformedGguf(place.info_offset,
                           absl::StrCat(label, ": its data offset ", place.data_offset,
                                        " is not a multiple of ", alignment));
    }
    ASSIGN_OR_RETURN(const std::optional<uint64_t> bytes, DataBytes(place));
    const uint64_t needed = bytes.value_or(0);
    if (place.data_offset > data.size() || needed > data.size() - place.data_offset) {
      return MalformedGguf(
          place.info_offset,
          absl::StrCat("truncated: ", label, " takes ", needed, " bytes at ", place.data_offset,
                       " of the data section, which has ", data.size()));
    }
    place.tensor.bytes = data.subspan(place.data_offset, needed);
  }
  return absl::OkStatus();
}

absl::Status CheckNoOverlap(const std::vector<TensorPlace>& places) {
  std::vector<const TensorPlace*> order;
  for (const TensorPlace& place : places) {
    if (!place.tensor.bytes.empty()) order.push_back(&place);
  }
  std::sort(order.begin(), order.end(), [](const TensorPlace* a, const TensorPlace* b) {
    return a->data_offset < b->data_offset;
  });
  for (size_t i = 1; i < order.size(); ++i) {
    const TensorPlace& before = *order[i - 1];
    if (before.data_offset + before.tensor.bytes.size() > order[i]->data_offset) {
      return MalformedGguf(order[i]->info_offset,
                           absl::StrCat("the data of tensor ", Printable(order[i]->tensor.name),
                                        " overlaps that of ", Printable(before.tensor.name)));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckCount(uint64_t count, uint64_t limit, absl::string_view what) {
  if (count <= limit) return absl::OkStatus();
  return MalformedGguf(8, absl::StrCat(count, " ", what, "; at most ", limit, " are allowed"));
}

absl::StatusOr<absl::flat_hash_map<absl::string_view, MetadataValue>> ReadValues(GgufReader& reader,
                                                                                 uint64_t count) {
  absl::flat_hash_map<absl::string_view, MetadataValue> values;
  uint64_t elements_left = kMaxArrayElements;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t at = reader.offset();
    ASSIGN_OR_RETURN(const absl::string_view key, reader.ReadName("metadata key"));
    auto value = ReadValue(reader, elements_left);
    if (!value.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("metadata key ", Printable(key), ": ", value.status().message()));
    }
    if (!values.emplace(key, *std::move(value)).second) {
      return MalformedGguf(at, absl::StrCat("metadata key ", Printable(key), " stands twice"));
    }
  }
  return values;
}

absl::StatusOr<uint64_t> ReadAlignment(
    const absl::flat_hash_map<absl::string_view, MetadataValue>& values) {
  const auto found = values.find("general.alignment");
  if (found == values.end()) return kDefaultAlignment;
  const auto* alignment = std::get_if<uint64_t>(&found->second);
  if (alignment == nullptr || *alignment < 8 || *alignment > kMaxAlignment ||
      (*alignment & (*alignment - 1)) != 0) {
    const std::string text = alignment == nullptr ? "no number" : absl::StrCat(*alignment);
    return absl::InvalidArgumentError(absl::StrCat("GGUF: general.alignment is ", text,
                                                   ", not a power of two from 8 to ", kMaxAlignment,
                                                   kGgufDamaged));
  }
  return *alignment;
}

}  // namespace

absl::StatusOr<ModelContents> ReadGguf(absl::Span<const uint8_t> bytes) {
  GgufReader reader(bytes);
  RETURN_IF_ERROR(CheckMagicAndVersion(reader));
  ASSIGN_OR_RETURN(const uint64_t tensor_count, reader.Read<uint64_t>("tensor count"));
  ASSIGN_OR_RETURN(const uint64_t value_count, reader.Read<uint64_t>("metadata count"));
  RETURN_IF_ERROR(CheckCount(tensor_count, kMaxTensors, "tensors"));
  RETURN_IF_ERROR(CheckCount(value_count, kMaxValues, "metadata keys"));

  ModelContents contents;
  ASSIGN_OR_RETURN(contents.values, ReadValues(reader, value_count));
  ASSIGN_OR_RETURN(const uint64_t alignment, ReadAlignment(contents.values));
  std::vector<TensorPlace> places;
  absl::flat_hash_set<absl::string_view> names;
  for (uint64_t i = 0; i < tensor_count; ++i) {
    ASSIGN_OR_RETURN(TensorPlace place, ReadTensorInfo(reader));
    if (!names.insert(place.tensor.name).second) {
      return MalformedGguf(place.info_offset,
                           absl::StrCat("tensor ", Printable(place.tensor.name), " stands twice"));
    }
    places.push_back(std::move(place));
  }
  const uint64_t padding = (alignment - reader.offset() % alignment) % alignment;
  const auto header = bytes.first(reader.offset() + std::min(padding, reader.remaining()));
  RETURN_IF_ERROR(PlaceTensors(bytes.subspan(header.size()), alignment, places));
  RETURN_IF_ERROR(CheckNoOverlap(places));
  for (TensorPlace& place : places) contents.tensors.push_back(std::move(place.tensor));
  contents.parts.push_back({"", MappedFile(), bytes, header});
  return contents;
}

}  // namespace efedllm
