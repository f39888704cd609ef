// Writes a GGUF (version 3) into memory: as much of the format as a made-up model needs.
#ifndef EFEDLLM_FAULTSIM_GGUF_WRITER_H_
#define EFEDLLM_FAULTSIM_GGUF_WRITER_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace efedllm::faultsim {

class GgufWriter {
 public:
  void Uint(absl::string_view key, uint32_t value) {
    Begin(key, 4);
    Put(values_, value);
  }
  void Float(absl::string_view key, float value) {
    Begin(key, 6);
    Put(values_, value);
  }
  void String(absl::string_view key, absl::string_view value) {
    Begin(key, 8);
    PutString(values_, value);
  }
  void Strings(absl::string_view key, const std::vector<std::string>& values) {
    BeginArray(key, 8, values.size());
    for (const std::string& value : values) PutString(values_, value);
  }
  void Floats(absl::string_view key, const std::vector<float>& values) {
    BeginArray(key, 6, values.size());
    for (const float value : values) Put(values_, value);
  }
  void Ints(absl::string_view key, const std::vector<int32_t>& values) {
    BeginArray(key, 5, values.size());
    for (const int32_t value : values) Put(values_, value);
  }
  // f32; shape: innermost first.
  void Tensor(absl::string_view name, const std::vector<uint64_t>& shape,
              const std::vector<float>& data) {
    data_.resize((data_.size() + kAlignment - 1) / kAlignment * kAlignment);
    PutString(infos_, name);
    Put(infos_, static_cast<uint32_t>(shape.size()));
    for (const uint64_t extent : shape) Put(infos_, extent);
    Put(infos_, uint32_t{0});
    Put(infos_, static_cast<uint64_t>(data_.size()));
    for (const float value : data) Put(data_, value);
    ++tensors_;
  }

  std::string Build() const {
    std::string file = "GGUF";
    Put(file, uint32_t{3});
    Put(file, tensors_);
    Put(file, entries_);
    file += values_;
    file += infos_;
    file.resize((file.size() + kAlignment - 1) / kAlignment * kAlignment);
    return file + data_;
  }

 private:
  static constexpr size_t kAlignment = 32;

  template <class T>
  static void Put(std::string& out, T value) {
    char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    out.append(bytes, sizeof value);
  }
  static void PutString(std::string& out, absl::string_view text) {
    Put(out, static_cast<uint64_t>(text.size()));
    out.append(text.data(), text.size());
  }
  void Begin(absl::string_view key, uint32_t type) {
    ++entries_;
    PutString(values_, key);
    Put(values_, type);
  }
  void BeginArray(absl::string_view key, uint32_t type, size_t size) {
    Begin(key, 9);
    Put(values_, type);
    Put(values_, static_cast<uint64_t>(size));
  }

  uint64_t entries_ = 0;
  uint64_t tensors_ = 0;
  std::string values_;
  std::string infos_;
  std::string data_;
};

}  // namespace efedllm::faultsim

#endif  // EFEDLLM_FAULTSIM_GGUF_WRITER_H_
