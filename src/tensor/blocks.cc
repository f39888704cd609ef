#include "tensor/blocks.h"

#include <cstring>

#include "common/check.h"
#include "tensor/half.h"

namespace efedllm {
namespace {

uint16_t LoadU16(const uint8_t* p) {
  uint16_t v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

// The low nibbles of n bytes, then their high nibbles.
void UnpackNibbles(const uint8_t* q, size_t n, uint8_t* codes) {
  for (size_t i = 0; i < n; ++i) {
    codes[i] = q[i] & 15;
    codes[n + i] = q[i] >> 4;
  }
}

// Two bits of each of 256 codes: fields of 32 bytes for the first 128, of the next 32 for the rest.
void UnpackTwoBits(const uint8_t* q, uint8_t* codes) {
  for (int field = 0; field < 8; ++field, codes += 32) {
    for (size_t i = 0; i < 32; ++i) codes[i] = q[field / 4 * 32 + i] >> (field % 4 * 2) & 3;
  }
}

// Puts bit i / 32 of byte i % 32 onto code i.
void AddBits(const uint8_t* h, int at, uint8_t* codes) {
  for (int field = 0; field < 8; ++field, codes += 32) {
    for (size_t i = 0; i < 32; ++i) codes[i] |= static_cast<uint8_t>((h[i] >> field & 1) << at);
  }
}

// Q5_0's and Q5_1's fifth bits and nibbles.
void UnpackFiveBits(const uint8_t* h, uint8_t* codes) {
  UnpackNibbles(h + 4, 16, codes);
  for (size_t i = 0; i < 4; ++i) {
    // Byte j of the word has bit j in its place; adding 127 carries it to bit 7, from there to 4.
    const uint64_t apart = h[i] * 0x0101010101010101u & 0x8040201008040201u;
    const uint64_t fifth = (apart + 0x7f7f7f7f7f7f7f7fu) >> 3 & 0x1010101010101010u;
    uint64_t eight;
    std::memcpy(&eight, codes + i * 8, 8);
    eight |= fifth;
    std::memcpy(codes + i * 8, &eight, 8);
  }
}

void UnpackSixBits(const uint8_t* block, uint8_t* codes) {
  UnpackNibbles(block, 64, codes);
  UnpackNibbles(block + 64, 64, codes + 128);
  uint8_t upper[256];
  UnpackTwoBits(block + 128, upper);
  for (size_t i = 0; i < 256; ++i) codes[i] |= static_cast<uint8_t>(upper[i] << 4);
}

void UnpackCodes(DType dtype, const uint8_t* block, uint8_t* codes) {
  switch (dtype) {
    case DType::kQ8_0:
      for (size_t i = 0; i < 32; ++i) codes[i] = block[2 + i] ^ 0x80;
      return;
    case DType::kQ4_0:
    case DType::kIQ4_NL:
      return UnpackNibbles(block + 2, 16, codes);
    case DType::kQ4_1:
      return UnpackNibbles(block + 4, 16, codes);
    case DType::kMXFP4:
      return UnpackNibbles(block + 1, 16, codes);
    case DType::kQ5_0:
      return UnpackFiveBits(block + 2, codes);
    case DType::kQ5_1:
      return UnpackFiveBits(block + 4, codes);
    case DType::kQ2_K:
      return UnpackTwoBits(block + 16, codes);
    case DType::kQ3_K:
      UnpackTwoBits(block + 32, codes);
      return AddBits(block, 2, codes);
    case DType::kQ4_K:
      for (size_t i = 0; i < 4; ++i) UnpackNibbles(block + 16 + i * 32, 32, codes + i * 64);
      return;
    case DType::kQ5_K:
      for (size_t i = 0; i < 4; ++i) UnpackNibbles(block + 48 + i * 32, 32, codes + i * 64);
      return AddBits(block + 16, 4, codes);
    case DType::kQ6_K:
      return UnpackSixBits(block, codes);
    case DType::kIQ4_XS:
      for (size_t i = 0; i < 8; ++i) UnpackNibbles(block + 8 + i * 16, 16, codes + i * 32);
      return;
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      break;
  }
  CheckFailed(__FILE__, __LINE__, "a float type has no blocks");
}

// Q4_K's and Q5_K's eight scales and mins of six bits, in 12 bytes.
void UnpackSixBitsMins(const uint8_t* p, UnpackedBlock* out) {
  for (size_t i = 0; i < 8; ++i) {
    const int scale = i < 4 ? p[i] & 63 : (p[i + 4] & 15) | p[i - 4] >> 6 << 4;
    const int min = i < 4 ? p[i + 4] & 63 : p[i + 4] >> 4 | p[i] >> 6 << 4;
    out->scales[2 * i] = out->scales[2 * i + 1] = static_cast<int8_t>(scale);
    out->mins[2 * i] = out->mins[2 * i + 1] = static_cast<int8_t>(-min);
  }
}

void UnpackScales(SubScales kind, const uint8_t* block, UnpackedBlock* out) {
  for (size_t i = 0; i < 16; ++i) {
    switch (kind) {
      case SubScales::kNone:
        out->scales[i] = out->mins[i] = 1;
        break;
      case SubScales::kInt8Pairs:
        out->scales[i] = static_cast<int8_t>(block[192 + i]);
        break;
      case SubScales::kSixBitPairs: {
        const uint8_t* p = block + 96;
        const int low = i < 8 ? p[i] & 15 : p[i - 8] >> 4;
        out->scales[i] = static_cast<int8_t>((low | (p[8 + i % 4] >> (i / 4 * 2) & 3) << 4) - 32);
        break;
      }
      case SubScales::kSixBits: {
        const size_t of32 = i / 2;
        const int low = block[4 + of32 / 2] >> (of32 % 2 * 4) & 15;
        const int high = LoadU16(block + 2) >> (of32 * 2) & 3;
        out->scales[i] = static_cast<int8_t>((low | high << 4) - 32);
        break;
      }
      case SubScales::kSixBitsMins:
        return UnpackSixBitsMins(block + 4, out);
      case SubScales::kFourBitsMins:
        out->scales[i] = block[i] & 15;
        out->mins[i] = static_cast<int8_t>(-(block[i] >> 4));
        break;
    }
  }
}

void DequantizeBlock(const QuantFormat& f, const uint8_t* block, size_t values, float* out) {
  const float d = HasE8m0(f) ? HalfE8m0ToF32(block[0]) : F16ToF32(LoadU16(block + f.d_offset));
  UnpackedBlock unpacked;
  UnpackBlock(f, block, &unpacked);
  for (size_t k = 0; k < values; ++k) {
    const uint8_t code = unpacked.codes[k];
    const int w = f.codebook == Codebook::kNone ? code - f.zero : CodebookValues(f)[code];
    const size_t part = k / 16;
    out[k] = d * unpacked.scales[part] * static_cast<float>(w);
    if (HasM(f)) out[k] += F16ToF32(LoadU16(block + f.m_offset)) * unpacked.mins[part];
  }
}

}  // namespace

const QuantFormat& QuantFormatOf(DType dtype) {
  for (const QuantFormat& format : kQuantFormats) {
    if (format.dtype == dtype) return format;
  }
  CheckFailed(__FILE__, __LINE__, "a float type has no blocks");
}

void UnpackBlock(const QuantFormat& format, const uint8_t* block, UnpackedBlock* out) {
  UnpackCodes(format.dtype, block, out->codes);
  UnpackScales(format.scales, block, out);
}

void DequantizeRow(DType dtype, const uint8_t* row, size_t n, float* out) {
  switch (dtype) {
    case DType::kF32:
      std::memcpy(out, row, n * sizeof(float));
      return;
    case DType::kF16:
      for (size_t k = 0; k < n; ++k) out[k] = F16ToF32(LoadU16(row + 2 * k));
      return;
    case DType::kBF16:
      for (size_t k = 0; k < n; ++k) out[k] = Bf16ToF32(LoadU16(row + 2 * k));
      return;
    default:
      break;
  }
  const size_t values = BlockValues(dtype), bytes = BlockBytes(dtype);
  const QuantFormat& format = QuantFormatOf(dtype);
  for (size_t k = 0; k < n; k += values, row += bytes) {
    DequantizeBlock(format, row, values, out + k);
  }
}

}  // namespace efedllm
