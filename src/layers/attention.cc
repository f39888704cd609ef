#include "layers/attention.h"

#include <algorithm>
#include <cmath>

#include "common/check.h"
#include "layers/kernels/kernel_table.h"

namespace efedllm {
namespace {

constexpr uint32_t kPage = KvCache::kPagePositions;

// Calls body(span, row, position) for rows [first, last) of the step.
template <class Body>
void ForRows(absl::Span<const KvSpan> spans, size_t first, size_t last, const Body& body) {
  size_t row = 0;
  for (const KvSpan& span : spans) {
    const size_t begin = std::max(first, row), end = std::min<size_t>(last, row + span.tokens);
    for (size_t r = begin; r < end; ++r) {
      body(span, r, span.first_position + static_cast<uint32_t>(r - row));
    }
    row += span.tokens;
  }
}

void StoreHead(const float* k, const float* v, uint32_t position, size_t head_dim, float* keys,
               float* values) {
  const size_t slot = position % kPage;
  for (size_t d = 0; d < head_dim; ++d) keys[d * kPage + slot] = k[d];
  std::copy_n(v, head_dim, values + slot * head_dim);
}

}  // namespace

void StoreKv(Compute& compute, absl::Span<const KvSpan> spans, uint32_t layer, ConstMatrixRef k,
             ConstMatrixRef v, KvCache& kv) {
  const KvShape& shape = kv.shape();
  CHECK(k.cols == size_t{shape.kv_heads} * shape.head_dim && v.cols == k.cols);
  compute.team->ParallelFor(k.rows == 1 ? 1 : shape.kv_heads, [&](size_t chunk) {
    const uint32_t first = k.rows == 1 ? 0 : static_cast<uint32_t>(chunk);
    const uint32_t last = k.rows == 1 ? shape.kv_heads : first + 1;
    ForRows(spans, 0, k.rows, [&](const KvSpan& span, size_t row, uint32_t position) {
      float* page = kv.pages(span.sequence)[position / kPage];
      for (uint32_t h = first; h < last; ++h) {
        StoreHead(k.row(row) + h * shape.head_dim, v.row(row) + h * shape.head_dim, position,
                  shape.head_dim, page + kv.k_offset(layer, h), page + kv.v_offset(layer, h));
      }
    });
  });
}

void Attend(Compute& compute, absl::Span<const KvSpan> spans, uint32_t layer, ConstMatrixRef q,
            const KvCache& kv, MatrixRef out) {
  const KvShape& shape = kv.shape();
  const size_t heads = q.cols / shape.head_dim;
  CHECK(heads * shape.head_dim == q.cols && heads % shape.kv_heads == 0);
  CHECK(out.rows == q.rows && out.cols == q.cols);
  const size_t group = heads / shape.kv_heads;  // query heads that share a kv head
  const float scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
  // Query heads that a chunk takes together, to read their keys and values once; fewer where there
  // would not be enough chunks for the threads.
  size_t together = std::min(group, kMaxAttendHeads);
  const size_t threads = static_cast<size_t>(compute.team->threads());
  while (together > 1 && q.rows * heads / together < 2 * threads) together = (together + 1) / 2;
  const size_t parts = (group + together - 1) / together;
  // Neighbouring chunks have the same kv head, so that its pages stay in cache.
  compute.team->ParallelFor(q.rows * parts * shape.kv_heads, [&](size_t chunk) {
    const size_t row = chunk % q.rows, part = chunk / q.rows % parts;
    const uint32_t kv_head = static_cast<uint32_t>(chunk / q.rows / parts);
    const size_t first = part * together;
    const size_t at = (kv_head * group + first) * shape.head_dim;
    ForRows(spans, row, row + 1, [&](const KvSpan& span, size_t, uint32_t position) {
      compute.kernels->attend({.q = q.row(row) + at,
                               .pages = kv.pages(span.sequence).data(),
                               .k_offset = kv.k_offset(layer, kv_head),
                               .v_offset = kv.v_offset(layer, kv_head),
                               .heads = std::min(together, group - first),
                               .head_dim = shape.head_dim,
                               .positions = size_t{position} + 1,
                               .scale = scale,
                               .out = out.row(row) + at});
    });
  });
}

}  // namespace efedllm
