// Weight matrices in the form that the kernels read: rows interleaved, one SIMD lane per output
// row.
//
// Sixteen rows form a group (the last is filled up with zeros); groups lie behind each other. With
// KB = cols / 32 blocks, the bytes of a group are, r being the row in the group:
//
//   F32         [cols][16] f32
//   F16, BF16   [cols][16] u16
//
// and for block formats, as their codes (tensor/quant_format.h) have
//
//   8 bits            [KB][8][16][4] int8: value 4g + j of row r at [g][r][j]
//   4, 5, 6 bits      [KB][4][16][4] u8: the low nibbles; byte [g][r][j] has value 4g + j below,
//                     16 + 4g + j above
//   2, 3, 6 bits      [KB][2][16][4] u8: two bits (the upper ones of 6, else the lower ones) of
//                     [2h] below, [2h] above, [2h+1] below, [2h+1] above of such nibbles
//   3, 5 bits         [KB][16][4] u8: the upper bit, of [0] to [3] below, [0] to [3] above
//
// then as the scales within a block are
//
//   of 8 bits, or of 4 bits with mins of 4 bits    [KB][16][2] u8: of the values below and above
//   two of 6 bits, or one and a min    [KB][16] u8: low nibbles of the two; [KB/2][16] u8: upper
//                                      bits of both, of an even block below, of an odd one above
//   one of 6 bits                      [KB/2][16] u8: low nibbles; [KB/4][16] u8: upper bits
//
// then for each block of the file [16] d (f16, or u8 in MXFP4) and, where it has one, [16] f16 m;
// and the group ends at the next multiple of 64. No bits are lost or added: packing is a
// permutation. docs/numerics.md says why this layout.
#ifndef EFEDLLM_LAYERS_PACKED_MATRIX_H_
#define EFEDLLM_LAYERS_PACKED_MATRIX_H_

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace efedllm {

// Changes whenever packed bytes change their meaning: caches on disk compare it.
inline constexpr uint32_t kPackedLayoutVersion = 1;

inline constexpr size_t kGroupRows = 16;
inline constexpr size_t kPackedAlignment = 64;

// A borrowed view. data: PackedMatrixBytes(dtype, rows, cols) bytes, aligned to kPackedAlignment,
// outlives the view.
struct PackedMatrix {
  DType dtype = DType::kF32;
  size_t rows = 0;  // outputs
  size_t cols = 0;  // inputs
  const uint8_t* data = nullptr;

  size_t groups() const { return (rows + kGroupRows - 1) / kGroupRows; }
  // count of its rows from first on, which is a multiple of kGroupRows.
  PackedMatrix Slice(size_t first, size_t count) const;
};

// Bytes of a group of 16 rows, a multiple of 64. cols: a multiple of the dtype's block.
uint64_t PackedGroupBytes(DType dtype, uint64_t cols);
// Bytes of the whole packed matrix.
uint64_t PackedMatrixBytes(DType dtype, uint64_t rows, uint64_t cols);

// Packs groups [first_group, last_group) of a matrix. gguf: the whole matrix as the file has it
// ([rows] rows of RowBytes(dtype, cols), any alignment); packed: the whole destination. Threads may
// pack different groups of one matrix at once.
void PackGroups(DType dtype, size_t rows, size_t cols, const uint8_t* gguf, uint8_t* packed,
                size_t first_group, size_t last_group);
// All groups.
void PackMatrix(DType dtype, size_t rows, size_t cols, const uint8_t* gguf, uint8_t* packed);

}  // namespace efedllm

#endif  // EFEDLLM_LAYERS_PACKED_MATRIX_H_
