#include "layers/linear.h"

#include <algorithm>

#include "absl/container/inlined_vector.h"
#include "common/check.h"
#include "layers/elementwise.h"
#include "layers/scratch.h"

namespace efedllm {
namespace {

// The activations of a panel stay in the second-level cache while the weights pass; wider ones read
// the weights less often. Kernels take 64 columns at a time.
constexpr size_t kPanelBytes = 1 << 20;
constexpr size_t kPanelStep = 64, kMaxPanelColumns = 256;
// Weights that one chunk reads: some microseconds of streaming, which is what a loop's end waits
// for.
constexpr size_t kChunkBytes = 40 * 1024;
constexpr size_t kQuantizeRowsPerChunk = 4;

bool IsQuantized(DType dtype) { return BlockValues(dtype) > 1; }

// Of one row of activations as the kernels read them.
size_t RowBytesOf(const PackedMatrix& w) {
  return IsQuantized(w.dtype) ? w.cols / kQuantValues * sizeof(QuantBlock) : w.cols * sizeof(float);
}

// How a term's product is cut up. Chunks are numbered panel by panel.
struct Cut {
  size_t group_bytes;
  size_t panel_columns;
  size_t groups_per_chunk;
  size_t group_chunks;
  size_t chunks;
};

Cut CutUp(const PackedMatrix& w, size_t columns, int threads) {
  Cut cut;
  cut.group_bytes = PackedGroupBytes(w.dtype, w.cols);
  const size_t row_bytes = std::max<size_t>(1, RowBytesOf(w));
  cut.panel_columns =
      std::clamp(kPanelBytes / row_bytes / kPanelStep * kPanelStep, kPanelStep, kMaxPanelColumns);
  const size_t by_size = std::max<size_t>(1, kChunkBytes / std::max<size_t>(1, cut.group_bytes));
  const size_t by_balance = std::max<size_t>(1, w.groups() / (4 * std::max(1, threads)));
  cut.groups_per_chunk = std::min(by_size, by_balance);
  cut.group_chunks = (w.groups() + cut.groups_per_chunk - 1) / cut.groups_per_chunk;
  cut.chunks = cut.group_chunks * ((columns + cut.panel_columns - 1) / cut.panel_columns);
  return cut;
}

// One chunk's part of args, which describes the whole product.
MatmulArgs Part(MatmulArgs args, const Cut& cut, size_t chunk, size_t element_bytes) {
  const size_t group = chunk % cut.group_chunks * cut.groups_per_chunk;
  const size_t column = chunk / cut.group_chunks * cut.panel_columns;
  args.w += group * args.group_bytes;
  args.rows = std::min(args.rows - group * kGroupRows, cut.groups_per_chunk * kGroupRows);
  args.x = static_cast<const uint8_t*>(args.x) + column * args.x_stride * element_bytes;
  args.columns = std::min(args.columns - column, cut.panel_columns);
  args.y += column * args.y_stride + group * kGroupRows;
  return args;
}

}  // namespace

void Linear::Quantize(ConstMatrixRef x) {
  const size_t blocks = x.cols / kQuantValues;
  if (quantized_.size() < x.rows * blocks) quantized_.resize(x.rows * blocks);
  const size_t chunks = (x.rows + kQuantizeRowsPerChunk - 1) / kQuantizeRowsPerChunk;
  compute_.team->ParallelFor(chunks, [&](size_t chunk) {
    const size_t first = chunk * kQuantizeRowsPerChunk;
    const size_t rows = std::min(kQuantizeRowsPerChunk, x.rows - first);
    compute_.kernels->quantize(x.row(first), rows * blocks, &quantized_[first * blocks]);
  });
}

void Linear::Run(ConstMatrixRef x, absl::Span<const LinearTerm> terms) {
  absl::InlinedVector<Cut, 16> cuts;
  size_t chunks = 0;
  bool quantized = false;
  for (const LinearTerm& term : terms) {
    CHECK(term.w.cols == x.cols && term.y.rows == x.rows && term.y.cols == term.w.rows);
    if (compute_.observe) compute_.observe(x, term.w);
    cuts.push_back(CutUp(term.w, x.rows, compute_.team->threads()));
    chunks += cuts.back().chunks;
    quantized |= IsQuantized(term.w.dtype);
  }
  if (quantized) Quantize(x);
  compute_.team->ParallelFor(chunks, [&](size_t chunk) {
    size_t i = 0;
    for (; chunk >= cuts[i].chunks; ++i) chunk -= cuts[i].chunks;
    const LinearTerm& term = terms[i];
    MatmulArgs args{.w = term.w.data,
                    .group_bytes = cuts[i].group_bytes,
                    .rows = term.w.rows,
                    .k = x.cols,
                    .x = x.data,
                    .x_stride = x.cols,
                    .columns = x.rows,
                    .y = term.y.data,
                    .y_stride = term.w.rows};
    size_t element_bytes = sizeof(float);
    if (IsQuantized(term.w.dtype)) {
      args.x = quantized_.data();
      args.x_stride = x.cols / kQuantValues;
      element_bytes = sizeof(QuantBlock);
    }
    MatmulFor(*compute_.kernels, term.w.dtype)(Part(args, cuts[i], chunk, element_bytes));
  });
}

void Linear::Project(ConstMatrixRef x, absl::Span<const ProjectionTerm> terms) {
  absl::InlinedVector<LinearTerm, 8> products;
  absl::InlinedVector<size_t, 8> inner;  // of each term: the term that computes its x · aᵀ
  if (inner_.size() < terms.size()) inner_.resize(terms.size());
  for (size_t i = 0; i < terms.size(); ++i) {
    const Projection& p = terms[i].projection;
    if (p.w.data != nullptr) products.push_back({p.w, terms[i].y});
    size_t first = 0;
    while (terms[first].projection.factor_a.data != p.factor_a.data) ++first;
    inner.push_back(first);
    if (p.is_factored() && first == i) {
      products.push_back({p.factor_a, Shaped(inner_[i], x.rows, p.factor_a.rows)});
    }
  }
  Run(x, products);
  for (size_t i = 0; i < terms.size(); ++i) {
    const Projection& p = terms[i].projection;
    if (!p.is_factored()) continue;
    const MatrixRef between = Shaped(inner_[inner[i]], x.rows, p.factor_a.rows);
    const bool adds = p.w.data != nullptr;
    const MatrixRef y = adds ? Shaped(correction_, x.rows, p.factor_b.rows) : terms[i].y;
    Run(between, {LinearTerm{p.factor_b, y}});
    if (adds) Add(compute_, terms[i].y, y);
  }
}

}  // namespace efedllm
