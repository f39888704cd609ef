// libs: efedllm_model
// Any bytes as a safetensors file: refused with a message, or tensors that lie in it and become a
// model's.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/check.h"
#include "model/hf_tensors.h"
#include "model/safetensors.h"

namespace {

const efedllm::HfClass kPlain = {.name = "Plain", .gguf_name = "llama"};
const efedllm::HfClass kPermuted = {
    .name = "Permuted", .gguf_name = "llama", .gguf_permutes = true, .one_plus_norms = true};

uint64_t Sum(absl::Span<const uint8_t> bytes) {
  return bytes.empty() ? 0 : uint64_t{bytes.front()} + bytes.back();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace efedllm;  // NOLINT(google-build-using-namespace): a fuzz target is one function
  const absl::StatusOr<Safetensors> file = ReadSafetensors(absl::MakeConstSpan(data, size));
  if (!file.ok()) {
    CHECK(!file.status().message().empty());
    return 0;
  }
  uint64_t sum = 0;
  size_t bytes = file->header.size();
  for (const SafetensorsTensor& tensor : file->tensors) {
    sum += Sum(tensor.bytes);
    bytes += tensor.bytes.size();
  }
  CHECK(bytes == size);
  for (const HfClass* kind : {&kPlain, &kPermuted}) {
    const HfModel facts = {
        .kind = kind, .tied = true, .experts = 2, .heads = 2, .kv_heads = 1, .head_dim = 2};
    ModelContents model;
    if (!AddHfTensors(facts, file->tensors, model).ok()) continue;
    std::vector<uint8_t> scratch;
    for (const ModelTensor& tensor : model.tensors) {
      sum += Sum(tensor.Bytes(0, tensor.size_bytes(), scratch));
    }
  }
  return static_cast<int>(sum & 0);
}
