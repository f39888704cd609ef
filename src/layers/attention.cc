#include "layers/attention.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/check.h"
#include "layers/kernels/kernel_table.h"
#include "layers/kernels/kv_layout.h"
#include "tensor/half.h"

namespace efedllm {
namespace {

// One head's key and value in a page's type, before they are laid out. At most one Q8_0 block or
// kPiece numbers at a time.
constexpr size_t kPiece = 256;

template <class T>
void Scatter(const T* from, size_t n, uint8_t* column) {
  for (size_t i = 0; i < n; ++i) std::memcpy(column + i * kKvPage * sizeof(T), from + i, sizeof(T));
}

void StoreF32(const float* k, const float* v, size_t slot, size_t n, uint8_t* keys,
              uint8_t* values) {
  Scatter(k, n, keys + slot * sizeof(float));
  std::memcpy(values + slot * n * sizeof(float), v, n * sizeof(float));
}

void StoreF16(const KernelTable& kernels, const float* k, const float* v, size_t slot, size_t n,
              uint8_t* keys, uint8_t* values) {
  uint16_t halves[kPiece];
  for (size_t d = 0; d < n; d += kPiece) {
    const size_t count = std::min(kPiece, n - d);
    kernels.to_f16(k + d, count, halves);
    Scatter(halves, count, keys + (d * kKvPage + slot) * sizeof(uint16_t));
    kernels.to_f16(v + d, count, halves);
    std::memcpy(values + (slot * n + d) * sizeof(uint16_t), halves, count * sizeof(uint16_t));
  }
}

void StoreQ8(const KernelTable& kernels, const float* k, const float* v, size_t slot, size_t n,
             uint8_t* keys, uint8_t* values) {
  const size_t blocks = n / kKvBlock;
  for (size_t b = 0; b < blocks; ++b) {
    QuantBlock block;
    uint16_t scale;
    kernels.quantize(k + b * kKvBlock, 1, &block);
    kernels.to_f16(&block.d, 1, &scale);
    Scatter(block.q, kKvBlock, keys + b * kKvBlock * kKvPage + slot);
    std::memcpy(keys + KvScalesAt(n) + (b * kKvPage + slot) * sizeof scale, &scale, sizeof scale);
    kernels.quantize(v + b * kKvBlock, 1, &block);
    kernels.to_f16(&block.d, 1, &scale);
    std::memcpy(values + slot * n + b * kKvBlock, block.q, kKvBlock);
    std::memcpy(values + KvScalesAt(n) + (slot * blocks + b) * sizeof scale, &scale, sizeof scale);
  }
}

// Query rows and heads of one span, counted row by row within a kv head's group: [first, last).
struct Chunk {
  size_t span, kv_head, first, last;
};

}  // namespace

void StoreKv(Compute& compute, absl::Span<const KvSpan> spans, uint32_t layer, ConstMatrixRef k,
             ConstMatrixRef v, KvCache& kv) {
  const KvShape& shape = kv.shape();
  const size_t n = shape.head_dim;
  CHECK(k.cols == shape.kv_heads * n && v.cols == k.cols && v.rows == k.rows);
  const auto store = [&](uint32_t head, size_t row, uint8_t* page, uint32_t position) {
    const float* key = k.row(row) + head * n;
    const float* value = v.row(row) + head * n;
    uint8_t* keys = page + kv.k_offset(layer, head);
    uint8_t* values = page + kv.v_offset(layer, head);
    const size_t slot = position % kKvPage;
    if (shape.type == KvType::kF32) StoreF32(key, value, slot, n, keys, values);
    if (shape.type == KvType::kF16) StoreF16(*compute.kernels, key, value, slot, n, keys, values);
    if (shape.type == KvType::kQ8_0) StoreQ8(*compute.kernels, key, value, slot, n, keys, values);
  };
  // A few rows are not worth waking anyone.
  const size_t chunks = k.rows < 4 ? 1 : shape.kv_heads;
  compute.team->ParallelFor(chunks, [&](size_t chunk) {
    const uint32_t first = static_cast<uint32_t>(chunk);
    const uint32_t last = chunks == 1 ? shape.kv_heads : first + 1;
    size_t row = 0;
    for (const KvSpan& span : spans) {
      const absl::Span<uint8_t* const> pages = kv.pages(span.sequence);
      for (uint32_t i = 0; i < span.tokens; ++i, ++row) {
        const uint32_t position = span.first_position + i;
        for (uint32_t h = first; h < last; ++h) store(h, row, pages[position / kKvPage], position);
      }
    }
  });
}

void Attend(Compute& compute, absl::Span<const KvSpan> spans, uint32_t layer,
            const AttentionOptions& options, ConstMatrixRef q, const KvCache& kv, MatrixRef out) {
  const KvShape& shape = kv.shape();
  const size_t n = shape.head_dim, heads = q.cols / n;
  CHECK(heads * n == q.cols && heads % shape.kv_heads == 0);
  CHECK(out.rows == q.rows && out.cols == q.cols);
  const size_t group = heads / shape.kv_heads;  // query heads that share a kv head
  // Queries that a chunk takes together, to read their keys and values once; fewer where there
  // would not be enough chunks for the threads.
  size_t together = kMaxAttendQueries;
  const size_t threads = static_cast<size_t>(compute.team->threads());
  while (together > 1 && q.rows * heads < 2 * threads * together) together /= 2;
  std::vector<Chunk> chunks;
  for (size_t head = 0; head < shape.kv_heads; ++head) {
    for (size_t s = 0; s < spans.size(); ++s) {
      const size_t queries = spans[s].tokens * group;
      for (size_t i = 0; i < queries; i += together) {
        chunks.push_back({s, head, i, std::min(i + together, queries)});
      }
    }
  }
  std::vector<size_t> first_rows;
  size_t rows = 0;
  for (const KvSpan& span : spans) {
    first_rows.push_back(rows);
    rows += span.tokens;
  }
  CHECK(rows == q.rows);
  // Neighbouring chunks have the same kv head, so that its pages stay in cache.
  compute.team->ParallelFor(chunks.size(), [&](size_t c) {
    const Chunk& chunk = chunks[c];
    const KvSpan& span = spans[chunk.span];
    AttendQuery queries[kMaxAttendQueries];
    for (size_t i = chunk.first; i < chunk.last; ++i) {
      const size_t row = i / group, head = chunk.kv_head * group + i % group;
      const uint32_t end = span.first_position + static_cast<uint32_t>(row) + 1;
      const uint32_t first = options.window != 0 && end > options.window ? end - options.window : 0;
      queries[i - chunk.first] = {q.row(first_rows[chunk.span] + row) + head * n,
                                  out.row(first_rows[chunk.span] + row) + head * n, first, end};
    }
    compute.kernels->attend({.type = shape.type,
                             .queries = queries,
                             .count = chunk.last - chunk.first,
                             .pages = kv.pages(span.sequence).data(),
                             .k_offset = kv.k_offset(layer, static_cast<uint32_t>(chunk.kv_head)),
                             .v_offset = kv.v_offset(layer, static_cast<uint32_t>(chunk.kv_head)),
                             .head_dim = n,
                             .scale = options.scale,
                             .soft_cap = options.soft_cap});
  });
}

}  // namespace efedllm
