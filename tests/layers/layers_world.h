// Random weights and activations for the tests of the layers.
#ifndef EFEDLLM_LAYERS_LAYERS_WORLD_H_
#define EFEDLLM_LAYERS_LAYERS_WORLD_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <numbers>
#include <vector>

#include "common/random.h"
#include "layers/kernels/kernel_table.h"
#include "layers/packed_matrix.h"
#include "tensor/blocks.h"
#include "tensor/half.h"
#include "tensor/matrix.h"

namespace efedllm {

inline constexpr DType kAllDtypes[] = {DType::kF32,  DType::kF16,    DType::kBF16,   DType::kQ8_0,
                                       DType::kQ4_0, DType::kQ4_1,   DType::kQ5_0,   DType::kQ5_1,
                                       DType::kQ2_K, DType::kQ3_K,   DType::kQ4_K,   DType::kQ5_K,
                                       DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS, DType::kMXFP4};

inline float Gaussian(Random& random) {
  const double u = 1.0 - random.Uniform(), v = random.Uniform();
  return static_cast<float>(std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v));
}

inline std::vector<float> Gaussians(Random& random, size_t n) {
  std::vector<float> values(n);
  for (float& v : values) v = Gaussian(random);
  return values;
}

// A zero, subnormal, huge or ordinary number of either sign.
inline float Adversarial(Random& random) {
  constexpr float kValues[] = {0.0f, 1e-45f, 1e-40f, 1.17549435e-38f, 1e-30f,
                               1.0f, 88.7f,  1e5f,   1e20f,           3.4028235e38f};
  const float value = kValues[random.Below(10)];
  return random.Below(2) == 0 ? value : -value;
}

inline Matrix GaussianMatrix(Random& random, size_t rows, size_t cols) {
  Matrix m(rows, cols);
  for (float& v : m.ref().span()) v = Gaussian(random);
  return m;
}

inline void StoreF16(float value, uint8_t* p) {
  const uint16_t h = F32ToF16(value);
  std::memcpy(p, &h, sizeof h);
}

// Gives a block of random bytes a d and an m such that its weights are around `value`.
inline void StoreScales(const QuantFormat& format, float value, uint8_t* block) {
  const float scale = format.scales == SubScales::kNone ? 1.0f : 32.0f;
  const float w = format.codebook == Codebook::kIq4 ? 127.0f : std::ldexp(1.0f, format.bits - 1);
  if (HasE8m0(format)) {
    block[0] = static_cast<uint8_t>(120 + block[0] % 8);
  } else {
    StoreF16(value / (scale * w), block + format.d_offset);
  }
  if (HasM(format)) StoreF16(value / scale, block + format.m_offset);
}

// A matrix of random GGUF bytes of any type, values around `scale`.
inline std::vector<uint8_t> RandomGguf(Random& random, DType dtype, size_t rows, size_t cols,
                                       float scale = 0.1f) {
  std::vector<uint8_t> bytes(rows * RowBytes(dtype, cols).value());
  const size_t block = BlockBytes(dtype);
  for (size_t i = 0; i < bytes.size(); i += block) {
    uint8_t* p = &bytes[i];
    for (size_t j = 0; j < block; ++j) p[j] = static_cast<uint8_t>(random.Next());
    const float value = Gaussian(random) * scale;
    switch (dtype) {
      case DType::kF32:
        std::memcpy(p, &value, sizeof value);
        break;
      case DType::kF16:
        StoreF16(value, p);
        break;
      case DType::kBF16: {
        const uint16_t h = F32ToBf16(value);
        std::memcpy(p, &h, sizeof h);
        break;
      }
      default:
        StoreScales(QuantFormatOf(dtype), value, p);
        break;
    }
  }
  return bytes;
}

// A packed matrix that owns its memory.
class OwnedMatrix {
 public:
  OwnedMatrix(DType dtype, size_t rows, size_t cols, const std::vector<uint8_t>& gguf)
      : memory_(new (std::align_val_t{kPackedAlignment})
                    uint8_t[PackedMatrixBytes(dtype, rows, cols)]) {
    PackMatrix(dtype, rows, cols, gguf.data(), memory_.get());
    view_ = {dtype, rows, cols, memory_.get()};
  }
  static OwnedMatrix Random(efedllm::Random& random, DType dtype, size_t rows, size_t cols,
                            float scale = 0.1f) {
    return OwnedMatrix(dtype, rows, cols, RandomGguf(random, dtype, rows, cols, scale));
  }
  const PackedMatrix& view() const { return view_; }

 private:
  struct Free {
    void operator()(uint8_t* p) const {
      ::operator delete[](p, std::align_val_t{kPackedAlignment});
    }
  };
  std::unique_ptr<uint8_t[], Free> memory_;
  PackedMatrix view_;
};

#ifdef EFEDLLM_EMULATED_AVX512
extern const KernelTable
    kEmulatedAvx512Table;  // tests/emulated_avx512; its row operations are AVX2
#endif

// The tables that this machine runs; the first is the definition. AVX-512's stands there twice:
// once with its intrinsics emulated, for machines without them.
inline std::vector<const KernelTable*> RunnableKernels() {
  std::vector<const KernelTable*> tables = {&ScalarKernels()};
  for (const KernelTable* table :
       {Avx2Kernels(), Avx512Kernels(), NeonKernels(), NeonDotprodKernels()}) {
    if (table != nullptr) tables.push_back(table);
  }
#ifdef EFEDLLM_EMULATED_AVX512
  static const KernelTable emulated = [] {
    KernelTable table = kEmulatedAvx512Table;
    table.name = "emulated_avx512";
    return table;
  }();
  if (Avx2Kernels() != nullptr) tables.push_back(&emulated);
#endif
  return tables;
}

inline bool SameBits(absl::Span<const float> a, absl::Span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace efedllm

#endif  // EFEDLLM_LAYERS_LAYERS_WORLD_H_
