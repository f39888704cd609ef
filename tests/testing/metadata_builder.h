// Small GGUF files in memory, for tests.
#ifndef EFEDLLM_TESTING_METADATA_BUILDER_H_
#define EFEDLLM_TESTING_METADATA_BUILDER_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace efedllm {

// A GGUF v3. Nothing is checked: broken files are made with it too.
class MetadataBuilder {
 public:
  MetadataBuilder& Add(absl::string_view key, absl::string_view value) {
    Begin(key, 8);
    PutString(metadata_, value);
    return *this;
  }
  MetadataBuilder& Add(absl::string_view key, const char* value) {
    return Add(key, absl::string_view(value));
  }
  MetadataBuilder& Add(absl::string_view key, bool value) {
    Begin(key, 7);
    metadata_.push_back(value ? 1 : 0);
    return *this;
  }
  MetadataBuilder& Add(absl::string_view key, uint32_t value) { return AddNumber(key, 4, value); }
  MetadataBuilder& Add(absl::string_view key, int32_t value) { return AddNumber(key, 5, value); }
  MetadataBuilder& Add(absl::string_view key, float value) { return AddNumber(key, 6, value); }
  MetadataBuilder& Add(absl::string_view key, uint64_t value) { return AddNumber(key, 10, value); }
  MetadataBuilder& Add(absl::string_view key, const std::vector<std::string>& values) {
    BeginArray(key, 8, values.size());
    for (const std::string& value : values) PutString(metadata_, value);
    return *this;
  }
  MetadataBuilder& Add(absl::string_view key, const std::vector<float>& values) {
    return AddNumbers(key, 6, values);
  }
  MetadataBuilder& Add(absl::string_view key, const std::vector<int32_t>& values) {
    return AddNumbers(key, 5, values);
  }
  // shape: innermost first.
  MetadataBuilder& AddTensor(absl::string_view name, uint32_t gguf_type,
                             const std::vector<uint64_t>& shape, absl::string_view bytes) {
    ++tensors_;
    PutString(tensor_infos_, name);
    Put(tensor_infos_, static_cast<uint32_t>(shape.size()));
    for (const uint64_t extent : shape) Put(tensor_infos_, extent);
    Put(tensor_infos_, gguf_type);
    Put(tensor_infos_, static_cast<uint64_t>(data_.size()));
    data_.append(bytes.data(), bytes.size());
    data_.resize((data_.size() + kAlignment - 1) / kAlignment * kAlignment);
    return *this;
  }

  std::string Build() const {
    std::string file = "GGUF";
    Put(file, uint32_t{3});
    Put(file, tensors_);
    Put(file, entries_);
    file += metadata_;
    file += tensor_infos_;
    file.resize((file.size() + kAlignment - 1) / kAlignment * kAlignment);
    return file + data_;
  }

 private:
  static constexpr size_t kAlignment = 32;

  template <class T>
  static void Put(std::string& out, T value) {
    static_assert(std::is_arithmetic_v<T>);
    char bytes[sizeof value];
    std::memcpy(bytes, &value,
                sizeof value);  // GGUF and the machines that we run on: little-endian
    out.append(bytes, sizeof value);
  }
  static void PutString(std::string& out, absl::string_view text) {
    Put(out, static_cast<uint64_t>(text.size()));
    out.append(text.data(), text.size());
  }
  void Begin(absl::string_view key, uint32_t type) {
    ++entries_;
    PutString(metadata_, key);
    Put(metadata_, type);
  }
  void BeginArray(absl::string_view key, uint32_t type, size_t size) {
    Begin(key, 9);
    Put(metadata_, type);
    Put(metadata_, static_cast<uint64_t>(size));
  }
  template <class T>
  MetadataBuilder& AddNumber(absl::string_view key, uint32_t type, T value) {
    Begin(key, type);
    Put(metadata_, value);
    return *this;
  }
  template <class T>
  MetadataBuilder& AddNumbers(absl::string_view key, uint32_t type, const std::vector<T>& values) {
    BeginArray(key, type, values.size());
    for (const T value : values) Put(metadata_, value);
    return *this;
  }

  uint64_t entries_ = 0;
  uint64_t tensors_ = 0;
  std::string metadata_;
  std::string tensor_infos_;
  std::string data_;
};

inline absl::Span<const uint8_t> BytesOf(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

}  // namespace efedllm

#endif  // EFEDLLM_TESTING_METADATA_BUILDER_H_
