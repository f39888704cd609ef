// The walk over pages that every ISA's attention shares. Static functions only: per-ISA files
// compile their own copies.
#ifndef EFEDLLM_LAYERS_KERNELS_ATTEND_PAGES_H_
#define EFEDLLM_LAYERS_KERNELS_ATTEND_PAGES_H_

#include <cstddef>
#include <cstdint>

#include "layers/kernels/kernel_table.h"
#include "layers/kernels/kv_layout.h"

namespace efedllm {

// What a query carries from page to page.
struct AttendRunning {
  float max, sum;
};

// Up to kMaxTogether queries that go through a page together.
template <size_t kMaxTogether>
struct AttendBatch {
  const AttendQuery* queries;
  AttendRunning* running;
  size_t count;
  uint32_t begin[kMaxTogether], end[kMaxTogether];  // the page's positions that each one sees
  uint32_t first, last;                             // that any of them sees
  float correction[kMaxTogether];
  alignas(64) float p[kMaxTogether][kKvPage];  // scores, then weights
};

// Fills in what queries [first, first + count) see of the page at position base. False: nothing.
template <size_t kMaxTogether>
static inline bool FillBatch(const AttendArgs& a, size_t first, size_t count, uint32_t base,
                             AttendRunning* running, AttendBatch<kMaxTogether>* batch) {
  batch->queries = a.queries + first;
  batch->running = running + first;
  batch->count = count;
  batch->first = kKvPage;
  batch->last = 0;
  for (size_t q = 0; q < count; ++q) {
    const AttendQuery& query = batch->queries[q];
    const uint32_t begin = query.first > base ? query.first - base : 0;
    const uint32_t end = query.end > base ? query.end - base : 0;
    batch->begin[q] = begin < kKvPage ? begin : kKvPage;
    batch->end[q] = end < kKvPage ? end : kKvPage;
    if (batch->begin[q] >= batch->end[q]) continue;
    if (batch->begin[q] < batch->first) batch->first = batch->begin[q];
    if (batch->end[q] > batch->last) batch->last = batch->end[q];
  }
  return batch->first < batch->last;
}

// Calls page(batch, page, ahead) for every batch of queries and every page of which it sees
// something, pages in order. The next page lies `ahead` bytes on, to be asked for while this one is
// computed with; 0: somebody else asks. take(left): how many of the queries left a batch takes.
template <size_t kMaxTogether, class Take, class Page>
static inline void AttendPages(const AttendArgs& a, const Take& take, const Page& page) {
  AttendRunning running[kMaxAttendQueries];
  uint32_t first = a.queries[0].first, end = 0;
  for (size_t q = 0; q < a.count; ++q) {
    const AttendQuery& query = a.queries[q];
    running[q] = {-__builtin_inff(), 0};
    for (size_t d = 0; d < a.head_dim; ++d) query.out[d] = 0;
    if (query.first < first) first = query.first;
    if (query.end > end) end = query.end;
  }
  AttendBatch<kMaxTogether> batch;
  const size_t pages = (size_t{end} + kKvPage - 1) / kKvPage;
  for (size_t i = first / kKvPage; i < pages; ++i) {
    ptrdiff_t ahead = i + 1 < pages ? a.pages[i + 1] - a.pages[i] : 0;
    for (size_t q = 0; q < a.count;) {
      const size_t count = take(a.count - q);
      if (FillBatch(a, q, count, static_cast<uint32_t>(i * kKvPage), running, &batch)) {
        page(&batch, a.pages[i], ahead);
        ahead = 0;
      }
      q += count;
    }
  }
  for (size_t q = 0; q < a.count; ++q) {
    float* out = a.queries[q].out;
    for (size_t d = 0; d < a.head_dim; ++d) out[d] = out[d] / running[q].sum + 0.0f;
  }
}

}  // namespace efedllm

#endif  // EFEDLLM_LAYERS_KERNELS_ATTEND_PAGES_H_
