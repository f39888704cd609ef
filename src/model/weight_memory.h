// Memory for packed weights, in huge pages where the kernel has them: a decode step reads all of
// it, and would otherwise look up hundreds of thousands of small pages.
#ifndef EFEDLLM_MODEL_WEIGHT_MEMORY_H_
#define EFEDLLM_MODEL_WEIGHT_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

namespace efedllm {

// Zeroed; takes RAM only where it is written.
class WeightMemory {
 public:
  // bytes: more than 0. ResourceExhausted: there is not enough address space.
  static absl::StatusOr<std::shared_ptr<WeightMemory>> Allocate(uint64_t bytes);
  ~WeightMemory();
  WeightMemory(const WeightMemory&) = delete;
  WeightMemory& operator=(const WeightMemory&) = delete;

  uint8_t* data() { return data_; }  // aligned to a page, at least
  const uint8_t* data() const { return data_; }

 private:
  WeightMemory(void* mapping, size_t mapped, uint8_t* data)
      : mapping_(mapping), mapped_(mapped), data_(data) {}

  void* const mapping_;
  const size_t mapped_;
  uint8_t* const data_;
};

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_WEIGHT_MEMORY_H_
