// The codecs that need a basis: rows become coefficients (row_transform), coefficients symbols
// (coefficient_coder), and symbols one or several rANS streams.
//
// An encoding is: with more than one stream, the bytes of each as u32; the streams, row r in
// stream r mod streams; of each coded row the massive dimensions as f16; rows that are sent plain.
#ifndef EFEDLLM_SVD_ENTROPY_CODEC_H_
#define EFEDLLM_SVD_ENTROPY_CODEC_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "svd/codec.h"
#include "svd/coefficient_coder.h"
#include "svd/row_transform.h"

namespace efedllm {

// What a stream says of a row before its coefficients.
struct RowHeader {
  CodecId plain = CodecId::kKlt;  // kInt8, kF16 or kF32: the row is among the plain ones
  bool is_plain = false;
  uint8_t scale = 0;
  bool marked = false;  // so the stream has plain rows
};

class EntropyCodec {
 public:
  // basis, forward, backward: borrowed; the matrices null for kScalar.
  EntropyCodec(const BoundaryBasis& basis, CodecSetting setting, const PackedMatrix* forward,
               const PackedMatrix* backward, const CodecKernels& kernels = BestCodecKernels());

  CodecSetting setting() const { return setting_; }
  // As ActivationCodec's.
  EncodingReport Encode(ConstMatrixRef rows, std::string& out);
  absl::Status Decode(absl::Span<const uint8_t> bytes, MatrixRef out);

 private:
  struct Stream {
    std::vector<RansSymbol> symbols;
    bool has_plain = false;

    void AppendPlain(CodecId codec);
  };
  struct Frame {
    std::vector<Stream> streams;
    std::string massive, plain;
    EncodingReport report;
  };

  void EncodeChunk(ConstMatrixRef rows, size_t first_row, Frame& frame);
  void EncodeRow(absl::Span<const float> row, absl::Span<const float> decoded, size_t r,
                 Stream& stream, Frame& frame);
  CodecId AppendBestPlain(absl::Span<const float> row, double most_error, std::string& out,
                          double& squared_error) const;
  void AppendHeader(uint8_t scale, std::vector<RansSymbol>& symbols) const;
  bool ReadHeader(RansReader& reader, RowHeader& header) const;
  absl::Status ReadStreams(size_t bytes, size_t rows, size_t& consumed);
  absl::Status ReadRows(absl::Span<RansReader> readers, const uint8_t* all_end);
  absl::Status ReadRest(absl::Span<const uint8_t> rest, MatrixRef out) const;

  const BoundaryBasis& basis_;
  const CodecSetting setting_;
  const CodecKernels& kernels_;
  CoefficientCoder coder_;
  RowTransform transform_;

  QuantizedRows quantized_;
  Matrix decoded_;
  std::vector<RansSymbol> header_symbols_, row_symbols_;
  std::vector<uint8_t> scales_;
  std::vector<uint8_t> padded_input_;
  std::vector<int16_t> q_;
  size_t q_stride_ = 0;
  std::vector<RowHeader> headers_;
};

}  // namespace efedllm

#endif  // EFEDLLM_SVD_ENTROPY_CODEC_H_
