#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "layers/kernels/kv_layout.h"
#include "layers/kernels/scalar.h"
#include "tensor/half.h"

namespace efedllm::scalar {
namespace {

float Half(const uint8_t* p, size_t i) {
  uint16_t h;
  std::memcpy(&h, p + 2 * i, sizeof h);
  return F16ToF32(h);
}

// Number i of an area, whose scale, if it has any, is number `scale`.
float ValueAt(KvType type, const uint8_t* area, size_t head_dim, size_t i, size_t scale) {
  if (type == KvType::kF16) return Half(area, i);
  if (type == KvType::kQ8_0) {
    return static_cast<float>(static_cast<int8_t>(area[i])) *
           Half(area + KvScalesAt(head_dim), scale);
  }
  float v;
  std::memcpy(&v, area + 4 * i, sizeof v);
  return v;
}

float KeyAt(const AttendArgs& a, const uint8_t* keys, size_t slot, size_t d) {
  return ValueAt(a.type, keys, a.head_dim, d * kKvPage + slot, d / kKvBlock * kKvPage + slot);
}

float ValueAt(const AttendArgs& a, const uint8_t* values, size_t slot, size_t d) {
  const size_t scales = a.head_dim / kKvBlock;
  return ValueAt(a.type, values, a.head_dim, slot * a.head_dim + d, slot * scales + d / kKvBlock);
}

void AttendOne(const AttendArgs& a, const AttendQuery& query) {
  float max = -std::numeric_limits<float>::infinity(), sum = 0;
  float* out = query.out;
  std::fill_n(out, a.head_dim, 0.0f);
  for (size_t base = query.first / kKvPage * kKvPage; base < query.end; base += kKvPage) {
    const uint8_t* keys = a.pages[base / kKvPage] + a.k_offset;
    const uint8_t* values = a.pages[base / kKvPage] + a.v_offset;
    const size_t begin = query.first > base ? query.first - base : 0;
    const size_t end = std::min(kKvPage, query.end - base);
    float p[kKvPage], partial[8] = {}, new_max = max;
    for (size_t i = begin; i < end; ++i) {
      float dot = 0;
      for (size_t d = 0; d < a.head_dim; ++d) dot = std::fma(query.q[d], KeyAt(a, keys, i, d), dot);
      p[i] = dot * a.scale;
      if (a.soft_cap != 0) p[i] = a.soft_cap * Tanh(p[i] / a.soft_cap);
      new_max = std::max(new_max, p[i]);
    }
    for (size_t i = begin; i < end; ++i) {
      p[i] = Exp(p[i] - new_max);
      partial[i % 8] += p[i];
    }
    const float correction = Exp(max - new_max);
    sum = std::fma(sum, correction, Tree(partial));
    for (size_t d = 0; d < a.head_dim; ++d) {
      float acc = out[d] * correction;
      for (size_t i = begin; i < end; ++i) acc = std::fma(p[i], ValueAt(a, values, i, d), acc);
      out[d] = acc;
    }
    max = new_max;
  }
  // The sign of a zero is not defined before: + 0 leaves none.
  for (size_t d = 0; d < a.head_dim; ++d) out[d] = out[d] / sum + 0.0f;
}

}  // namespace

void Attend(const AttendArgs& a) {
  for (size_t i = 0; i < a.count; ++i) AttendOne(a, a.queries[i]);
}

}  // namespace efedllm::scalar
