// The codecs that need a basis: rows become coefficients (row_transform), coefficients symbols
// (coefficient_coder), and symbols one or several rANS streams.
//
// An encoding is: with more than one stream, the bytes of each as u32; the streams, row r in
// stream r mod streams; of each coded row the massive dimensions as f16; rows that are sent plain.
#ifndef EFEDLLM_SVD_ENTROPY_CODEC_H_
#define EFEDLLM_SVD_ENTROPY_CODEC_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "svd/codec.h"
#include "svd/coefficient_coder.h"
#include "svd/encoded_rows.h"
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
  EncodingReport Encode(ConstMatrixRef rows, ErrorMeasure measure, std::string& out,
                        EncodedRows* alone = nullptr);
  absl::Status Decode(absl::Span<const uint8_t> bytes, MatrixRef out, EncodedRows* alone = nullptr);

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
    std::optional<RowStreams> alone;  // each row by itself, if that is wanted
  };

  double Budget(std::optional<uint8_t> scale) const;
  void MeasureErrors(ConstMatrixRef rows, ErrorMeasure measure);
  void EncodeChunk(ConstMatrixRef rows, size_t first_row, ErrorMeasure measure, Frame& frame);
  void EncodeRow(absl::Span<const float> row, size_t r, Stream& stream, Frame& frame);
  CodecId AppendBestPlain(absl::Span<const float> row, double most_error, std::string& out,
                          double& squared_error) const;
  void AppendHeader(uint8_t scale, std::vector<RansSymbol>& symbols) const;
  bool ReadHeader(RansReader& reader, RowHeader& header) const;
  absl::Status ReadStreams(size_t bytes, size_t rows, size_t& consumed);
  absl::Status ReadRows(absl::Span<RansReader> readers, const uint8_t* all_end);
  absl::Status ReadRest(absl::Span<const uint8_t> rest, MatrixRef out,
                        std::vector<absl::string_view>* tails) const;
  // Of rows that were read, by what stands behind each row's stream.
  void AddAlone(absl::Span<const absl::string_view> tails, EncodedRows& alone);

  const BoundaryBasis& basis_;
  const CodecSetting setting_;
  const CodecKernels& kernels_;
  CoefficientCoder coder_;
  RowTransform transform_;

  QuantizedRows quantized_;
  std::vector<double> errors_;  // of quantized_'s rows, squared; as ErrorMeasure says
  std::vector<size_t> to_decode_;
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
