#include "svd/packed_matrix.h"

#include <sys/mman.h>

#include "common/check.h"

namespace efedllm {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

template <class Entry>
void Pack(const IntegerMatrix& matrix, size_t n, bool transposed, Entry* packed) {
  const size_t pairs = (n + 1) / 2;
  for (size_t row = 0; row < n; ++row) {
    for (size_t col = 0; col < n; ++col) {
      const size_t output = transposed ? row : col;
      const size_t input = transposed ? col : row;
      const size_t at =
          ((output / kPanelOutputs * pairs + input / 2) * kPanelOutputs + output % kPanelOutputs) *
              2 +
          input % 2;
      packed[at] = static_cast<Entry>(matrix.values[row * n + col]);
    }
  }
}

}  // namespace

// Zeros. One token reads a large matrix once: huge pages halve the time of that, and memory that
// the heap had before would not come in them.
std::unique_ptr<void, PackedMatrix::Unmap> PackedMatrix::Allocate(size_t bytes) {
  const size_t slack = bytes >= kHugePage ? kHugePage : 0;
  void* const mapping =
      mmap(nullptr, bytes + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(mapping != MAP_FAILED);
  auto* entries = static_cast<uint8_t*>(mapping);
  if (slack != 0) {
    entries += (kHugePage - reinterpret_cast<uintptr_t>(entries) % kHugePage) % kHugePage;
    madvise(entries, bytes, MADV_HUGEPAGE);
  }
  return {entries, Unmap{mapping, bytes + slack}};
}

void PackedMatrix::Unmap::operator()(void* /*entries*/) const { munmap(mapping, bytes); }

PackedMatrix::PackedMatrix(const IntegerMatrix& matrix, size_t n, bool transposed)
    : entry_bytes_(matrix.entry_bytes),
      pairs_((n + 1) / 2),
      entries_(Allocate(WholePanels(n) * pairs_ * 2 * entry_bytes_)) {
  if (entry_bytes_ == 1) {
    Pack(matrix, n, transposed, static_cast<int8_t*>(entries_.get()));
  } else {
    Pack(matrix, n, transposed, static_cast<int16_t*>(entries_.get()));
  }
}

void PackedMatrix::Project(const CodecKernels& kernels, const int16_t* x, size_t x_stride,
                           size_t inputs, size_t rows, int32_t* y, size_t y_stride,
                           size_t outputs) const {
  ProjectionArgs args{};
  args.matrix = entries_.get();
  args.panel_pairs = pairs_;
  args.panels = WholePanels(outputs) / kPanelOutputs;
  args.pairs = (inputs + 1) / 2;
  args.x = x;
  args.x_stride = x_stride;
  args.rows = rows;
  args.y = y;
  args.y_stride = y_stride;
  (entry_bytes_ == 1 ? kernels.project_int8 : kernels.project_int16)(args);
}

}  // namespace efedllm
