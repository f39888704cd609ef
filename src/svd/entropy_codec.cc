#include "svd/entropy_codec.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "svd/codec_grid.h"
#include "svd/plain_rows.h"
#include "tensor/half.h"

namespace efedllm {
namespace {

constexpr size_t kChunkRows = 48;
// Several streams are decoded faster, and cost some bytes each.
constexpr size_t kMaxStreams = 8;
constexpr size_t kCoefficientsPerStream = 16384;
constexpr size_t kReadBehindEnd = 8;
constexpr std::array<CodecId, 3> kPlainCodecs = {CodecId::kInt8, CodecId::kF16, CodecId::kF32};
constexpr int kModeBits = 2;  // 0: the row is coded after all; 1 + index into kPlainCodecs

constexpr RansSymbol kMark = {kProbabilityOne - 1, 1, kProbabilityBits};

size_t StreamCount(size_t rows, size_t coefficients) {
  return std::clamp<size_t>(rows * coefficients / kCoefficientsPerStream, 1,
                            std::min(rows, kMaxStreams));
}

absl::Status Malformed(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("the coded activations ", what));
}

// The mark of a plain row.
std::array<RansSymbol, 2> PlainMark(CodecId codec) {
  const auto* const mode = std::find(kPlainCodecs.begin(), kPlainCodecs.end(), codec);
  return {kMark, RawBits(static_cast<uint32_t>(mode - kPlainCodecs.begin()) + 1, kModeBits)};
}

void AddPlainAlone(CodecId codec, absl::string_view row, RowStreams& alone) {
  alone.Add(PlainMark(codec), {}, kRansOpenStart, row);
}

}  // namespace

EntropyCodec::EntropyCodec(const BoundaryBasis& basis, CodecSetting setting,
                           const PackedMatrix* forward, const PackedMatrix* backward,
                           const CodecKernels& kernels)
    : basis_(basis),
      setting_(setting),
      kernels_(kernels),
      coder_(setting.id == CodecId::kKlt ? basis.klt : basis.scalar, setting.step),
      transform_(basis, setting, coder_.count(), forward, backward, kernels),
      row_symbols_(coder_.most_symbols()) {}

void EntropyCodec::Stream::AppendPlain(CodecId codec) {
  // The reader must know from the stream's first symbol on that there are plain rows.
  if (!has_plain && !symbols.empty()) {
    symbols.insert(symbols.begin(), {kMark, RawBits(0, kModeBits)});
  }
  has_plain = true;
  const std::array<RansSymbol, 2> mark = PlainMark(codec);
  symbols.insert(symbols.end(), mark.begin(), mark.end());
}

// The scales of the basis's window, then any other, then the mark of a plain row.
void EntropyCodec::AppendHeader(uint8_t scale, std::vector<RansSymbol>& symbols) const {
  uint32_t start = 0;
  for (size_t i = 0; i < basis_.scale_frequency.size(); ++i) {
    const uint16_t frequency = basis_.scale_frequency[i];
    if (basis_.first_scale + i == scale) {
      symbols.push_back({static_cast<uint16_t>(start), frequency, kProbabilityBits});
      return;
    }
    start += frequency;
  }
  symbols.push_back({static_cast<uint16_t>(start),
                     static_cast<uint16_t>(kProbabilityOne - 1 - start), kProbabilityBits});
  symbols.push_back(RawBits(scale, 8));
}

bool EntropyCodec::ReadHeader(RansReader& reader, RowHeader& header) const {
  header = {};
  if (reader.Peek(kProbabilityBits) == kProbabilityOne - 1) {
    reader.Take(kProbabilityOne - 1, 1, kProbabilityBits);
    header.marked = true;
    const uint32_t mode = reader.TakeRaw(kModeBits);
    header.is_plain = mode != 0;
    if (header.is_plain) {
      header.plain = kPlainCodecs[mode - 1];
      return true;
    }
    if (reader.Peek(kProbabilityBits) == kProbabilityOne - 1) return false;
  }
  const uint32_t at = reader.Peek(kProbabilityBits);
  uint32_t start = 0;
  for (size_t i = 0; i < basis_.scale_frequency.size(); ++i) {
    const uint16_t frequency = basis_.scale_frequency[i];
    if (at < start + frequency) {
      reader.Take(start, frequency, kProbabilityBits);
      header.scale = static_cast<uint8_t>(basis_.first_scale + i);
      return true;
    }
    start += frequency;
  }
  reader.Take(start, kProbabilityOne - 1 - start, kProbabilityBits);
  header.scale = static_cast<uint8_t>(reader.TakeRaw(8));
  return true;
}

CodecId EntropyCodec::AppendBestPlain(absl::Span<const float> row, double most_error,
                                      std::string& out, double& squared_error) const {
  const size_t begin = out.size();
  for (const CodecId codec : kPlainCodecs) {
    out.resize(begin);
    const PlainRow plain = AppendPlainRow(codec, row, out);
    if (plain.codec != codec || plain.squared_error > most_error) continue;
    squared_error = plain.squared_error;
    return codec;
  }
  return CodecId::kF32;  // which always fits
}

// The most that a row's squared error may be: half a step for each coefficient, on the scale of the
// calibrated rows.
double EntropyCodec::Budget(std::optional<uint8_t> scale) const {
  const CoefficientModel& model = setting_.id == CodecId::kKlt ? basis_.klt : basis_.scalar;
  const double bound =
      0.5 * StepSize(setting_.step) * model.noise_gain *
      (scale ? std::min(ScaleOf(*scale), basis_.largest_scale) : basis_.largest_scale);
  return bound * bound * static_cast<double>(basis_.d_model);
}

void EntropyCodec::MeasureErrors(ConstMatrixRef rows, ErrorMeasure measure) {
  errors_.assign(rows.rows, std::numeric_limits<double>::infinity());
  to_decode_.clear();
  scales_.clear();
  for (size_t r = 0; r < rows.rows; ++r) {
    const std::optional<uint8_t> scale = quantized_.scale[r];
    if (!scale) continue;
    errors_[r] = quantized_.most_error[r];
    for (const uint32_t i : basis_.massive) {
      const double value = rows.row(r)[i];
      const double difference = value - double{F16ToF32(F32ToF16(rows.row(r)[i]))};
      errors_[r] += difference * difference;
    }
    if (measure == ErrorMeasure::kBound && errors_[r] <= Budget(scale)) continue;
    to_decode_.push_back(r);
    scales_.push_back(*scale);
  }
  if (to_decode_.empty()) return;
  if (decoded_.rows() == 0) decoded_ = Matrix(kChunkRows, rows.cols);
  q_.resize(to_decode_.size() * quantized_.stride);
  for (size_t k = 0; k < to_decode_.size(); ++k) {
    std::copy_n(quantized_.q.data() + to_decode_[k] * quantized_.stride, quantized_.stride,
                q_.data() + k * quantized_.stride);
  }
  CHECK(transform_.Reconstruct(q_.data(), quantized_.stride, scales_.data(),
                               {decoded_.row(0), to_decode_.size(), rows.cols}));
  for (size_t k = 0; k < to_decode_.size(); ++k) {
    const float* const row = rows.row(to_decode_[k]);
    for (const uint32_t i : basis_.massive) decoded_.row(k)[i] = F16ToF32(F32ToF16(row[i]));
    errors_[to_decode_[k]] = kernels_.squared_error(row, decoded_.row(k), rows.cols);
  }
}

void EntropyCodec::EncodeRow(absl::Span<const float> row, size_t r, Stream& stream, Frame& frame) {
  const std::optional<uint8_t> scale = quantized_.scale[r];
  const double most_error = Budget(scale), error = errors_[r];
  const bool coded = error <= most_error;
  header_symbols_.clear();
  RansSymbol* symbols_end = row_symbols_.data();
  uint64_t coded_bytes = 0;
  if (coded) {
    AppendHeader(*scale, header_symbols_);
    uint64_t cost = 0;
    symbols_end =
        coder_.Write(quantized_.q.data() + r * quantized_.stride, row_symbols_.data(), cost);
    coded_bytes = cost / 2048 + basis_.massive.size() * sizeof(uint16_t);
  }
  if (!coded || coded_bytes > PlainRowBytes(CodecId::kInt8, row.size())) {
    const size_t begin = frame.plain.size();
    double plain_error = 0;
    const CodecId plain = AppendBestPlain(row, most_error, frame.plain, plain_error);
    if (!coded || frame.plain.size() - begin < coded_bytes) {
      stream.AppendPlain(plain);
      if (frame.alone)
        AddPlainAlone(plain, absl::string_view(frame.plain).substr(begin), *frame.alone);
      frame.report.squared_error += plain_error;
      ++frame.report.plain_rows;
      return;
    }
    frame.plain.resize(begin);
  }
  stream.symbols.insert(stream.symbols.end(), header_symbols_.begin(), header_symbols_.end());
  stream.symbols.insert(stream.symbols.end(), row_symbols_.data(), symbols_end);
  const size_t massive_begin = frame.massive.size();
  for (const uint32_t i : basis_.massive) {
    const uint16_t half = F32ToF16(row[i]);
    frame.massive.append(reinterpret_cast<const char*>(&half), sizeof(half));
  }
  if (frame.alone) {
    frame.alone->Add(header_symbols_,
                     {row_symbols_.data(), static_cast<size_t>(symbols_end - row_symbols_.data())},
                     kRansStart, absl::string_view(frame.massive).substr(massive_begin));
  }
  frame.report.squared_error += error;
}

void EntropyCodec::EncodeChunk(ConstMatrixRef rows, size_t first_row, ErrorMeasure measure,
                               Frame& frame) {
  transform_.Quantize(rows, quantized_);
  MeasureErrors(rows, measure);
  for (size_t r = 0; r < rows.rows; ++r) {
    EncodeRow({rows.row(r), rows.cols}, r, frame.streams[(first_row + r) % frame.streams.size()],
              frame);
  }
}

EncodingReport EntropyCodec::Encode(ConstMatrixRef rows, ErrorMeasure measure, std::string& out,
                                    EncodedRows* alone) {
  if (rows.rows == 0) return {};
  const size_t begin = out.size();
  Frame frame;
  if (alone != nullptr && rows.rows > 1) frame.alone.emplace(*alone);
  frame.streams.resize(StreamCount(rows.rows, basis_.coefficients()));
  for (size_t r = 0; r < rows.rows; r += kChunkRows) {
    EncodeChunk({rows.row(r), std::min(kChunkRows, rows.rows - r), rows.cols}, r, measure, frame);
  }
  std::vector<RansStream> streams;
  streams.reserve(frame.streams.size());
  for (const Stream& stream : frame.streams) {
    streams.push_back({stream.symbols, stream.has_plain ? kRansOpenStart : kRansStart});
  }
  const std::vector<std::string> written = WriteRans(streams);
  for (size_t s = 0; written.size() > 1 && s < written.size(); ++s) {
    const auto bytes = static_cast<uint32_t>(written[s].size());
    out.append(reinterpret_cast<const char*>(&bytes), sizeof(bytes));
  }
  for (const std::string& stream : written) out += stream;
  out += frame.massive;
  out += frame.plain;
  if (frame.alone) {
    frame.alone->Flush();
  } else if (alone != nullptr) {
    alone->Add(absl::string_view(out).substr(begin));
  }
  return frame.report;
}

// All rows, one of each stream at a time. all_end: of everything that was sent, where a stream may
// turn out to end if it is the only one.
absl::Status EntropyCodec::ReadRows(absl::Span<RansReader> readers, const uint8_t* all_end) {
  std::vector<uint8_t> open(readers.size(), 0);
  std::vector<CoefficientCoder::RowToRead> coded;
  coded.reserve(readers.size());
  for (size_t first = 0; first < headers_.size(); first += readers.size()) {
    coded.clear();
    for (size_t s = 0; s < std::min(readers.size(), headers_.size() - first); ++s) {
      RowHeader& header = headers_[first + s];
      if (!ReadHeader(readers[s], header)) return Malformed("have a row's mark twice");
      if (header.marked && open[s] == 0) {
        if (first != 0) return Malformed("have a plain row that was not announced");
        open[s] = 1;
        if (readers.size() == 1) readers[s].set_end(all_end);
      }
      if (!header.is_plain) coded.push_back({&readers[s], q_.data() + (first + s) * q_stride_});
    }
    if (!coder_.Read(coded)) return Malformed("have a coefficient out of range");
  }
  for (size_t s = 0; s < readers.size(); ++s) {
    if (readers[s].state() != (open[s] != 0 ? kRansOpenStart : kRansStart)) {
      return Malformed("are damaged");
    }
  }
  return absl::OkStatus();
}

// bytes of padded_input_ are the encoding; consumed: those of lengths and streams.
absl::Status EntropyCodec::ReadStreams(size_t bytes, size_t rows, size_t& consumed) {
  const uint8_t* const begin = padded_input_.data();
  const size_t count = StreamCount(rows, basis_.coefficients());
  if (count == 1) {
    // Unless it says that rows are plain, the stream ends where the massive dimensions begin.
    const uint64_t massive = uint64_t{rows} * basis_.massive.size() * sizeof(uint16_t);
    if (bytes < massive) return Malformed("are cut off");
    RansReader reader(begin, begin + (bytes - massive));
    RETURN_IF_ERROR(ReadRows(absl::MakeSpan(&reader, 1), begin + bytes));
    consumed = static_cast<size_t>(reader.next() - begin);
    return absl::OkStatus();
  }
  consumed = count * sizeof(uint32_t);
  if (bytes < consumed) return Malformed("are cut off");
  std::vector<RansReader> readers;
  std::vector<const uint8_t*> ends;
  readers.reserve(count);
  ends.reserve(count);
  for (size_t s = 0; s < count; ++s) {
    uint32_t length;
    std::memcpy(&length, begin + s * sizeof(length), sizeof(length));
    if (length > bytes - consumed) return Malformed("are cut off");
    ends.push_back(begin + consumed + length);
    readers.emplace_back(begin + consumed, ends.back());
    consumed += length;
  }
  RETURN_IF_ERROR(ReadRows(absl::MakeSpan(readers), begin + bytes));
  for (size_t s = 0; s < count; ++s) {
    if (readers[s].next() != ends[s]) return Malformed("have a stream that is too long");
  }
  return absl::OkStatus();
}

// What stands behind the streams: massive dimensions and plain rows.
absl::Status EntropyCodec::ReadRest(absl::Span<const uint8_t> rest, MatrixRef out,
                                    std::vector<absl::string_view>* tails) const {
  if (tails != nullptr) tails->resize(out.rows);
  const auto end_row = [&](size_t r, const uint8_t* begin) {
    if (tails == nullptr) return;
    (*tails)[r] = {reinterpret_cast<const char*>(begin), static_cast<size_t>(rest.data() - begin)};
  };
  for (size_t r = 0; r < out.rows; ++r) {
    if (headers_[r].is_plain) continue;
    const uint8_t* const begin = rest.data();
    for (const uint32_t i : basis_.massive) {
      absl::Span<float> value(out.row(r) + i, 1);
      RETURN_IF_ERROR(ReadPlainRow(CodecId::kF16, rest, value));
    }
    end_row(r, begin);
  }
  for (size_t r = 0; r < out.rows; ++r) {
    if (!headers_[r].is_plain) continue;
    const uint8_t* const begin = rest.data();
    RETURN_IF_ERROR(ReadPlainRow(headers_[r].plain, rest, {out.row(r), out.cols}));
    end_row(r, begin);
  }
  return rest.empty() ? absl::OkStatus() : Malformed("are too long");
}

void EntropyCodec::AddAlone(absl::Span<const absl::string_view> tails, EncodedRows& alone) {
  RowStreams streams(alone);
  for (size_t r = 0; r < tails.size(); ++r) {
    if (headers_[r].is_plain) {
      AddPlainAlone(headers_[r].plain, tails[r], streams);
      continue;
    }
    header_symbols_.clear();
    AppendHeader(headers_[r].scale, header_symbols_);
    uint64_t cost = 0;
    const RansSymbol* const end =
        coder_.Write(q_.data() + r * q_stride_, row_symbols_.data(), cost);
    streams.Add(header_symbols_,
                {row_symbols_.data(), static_cast<size_t>(end - row_symbols_.data())}, kRansStart,
                tails[r]);
  }
  streams.Flush();
}

absl::Status EntropyCodec::Decode(absl::Span<const uint8_t> bytes, MatrixRef out,
                                  EncodedRows* alone) {
  if (out.rows == 0) {
    return bytes.empty() ? absl::OkStatus() : Malformed("are too long");
  }
  padded_input_.assign(bytes.begin(), bytes.end());
  padded_input_.resize(bytes.size() + kReadBehindEnd);
  headers_.assign(out.rows, {});
  q_stride_ = (basis_.coefficients() + kContextBlock - 1) / kContextBlock * kContextBlock;
  q_.assign(out.rows * q_stride_, 0);
  size_t consumed = 0;
  RETURN_IF_ERROR(ReadStreams(bytes.size(), out.rows, consumed));
  for (size_t r = 0; r < out.rows; r += kChunkRows) {
    const size_t rows = std::min(kChunkRows, out.rows - r);
    scales_.clear();
    for (size_t i = r; i < r + rows; ++i) scales_.push_back(headers_[i].scale);
    if (!transform_.Reconstruct(q_.data() + r * q_stride_, q_stride_, scales_.data(),
                                {out.row(r), rows, out.cols})) {
      return Malformed("have a coefficient out of range");
    }
  }
  if (alone == nullptr || out.rows == 1) {
    RETURN_IF_ERROR(ReadRest(bytes.subspan(consumed), out, nullptr));
    if (alone != nullptr) {
      alone->Add({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    }
    return absl::OkStatus();
  }
  std::vector<absl::string_view> tails;
  RETURN_IF_ERROR(ReadRest(bytes.subspan(consumed), out, &tails));
  AddAlone(tails, *alone);
  return absl::OkStatus();
}

}  // namespace efedllm
