#include "model/weight_memory.h"

#include <sys/mman.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/units.h"

namespace efedllm {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

absl::StatusOr<std::shared_ptr<WeightMemory>> WeightMemory::Allocate(uint64_t bytes) {
  CHECK(bytes > 0);
  const size_t slack = bytes >= kHugePage ? kHugePage : 0;
  void* mapping = MAP_FAILED;
  if (bytes <= SIZE_MAX - slack) {
    mapping = mmap(nullptr, bytes + slack, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  }
  if (mapping == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for weights of ", FormatBytes(bytes)));
  }
  auto* data = static_cast<uint8_t*>(mapping);
  if (slack != 0) {
    data += (kHugePage - reinterpret_cast<uintptr_t>(data) % kHugePage) % kHugePage;
    madvise(data, bytes, MADV_HUGEPAGE);  // small pages do as well, a little slower
  }
  return std::shared_ptr<WeightMemory>(new WeightMemory(mapping, bytes + slack, data));
}

WeightMemory::~WeightMemory() { munmap(mapping_, mapped_); }

}  // namespace efedllm
