#include "coordinator/audit_replay.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

absl::Span<const uint8_t> AsBytes(const std::string& bytes) {
  return {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
}

absl::Status CheckFinite(ConstMatrixRef rows) {
  for (size_t i = 0; i < rows.rows * rows.cols; ++i) {
    if (rows.data[i] - rows.data[i] == 0) continue;
    return absl::DataLossError(absl::StrCat("row ", i / rows.cols, " is not finite"));
  }
  return absl::OkStatus();
}

Matrix CopyOf(ConstMatrixRef rows) {
  Matrix copy(rows.rows, rows.cols);
  std::copy_n(rows.data, rows.rows * rows.cols, copy.ref().data);
  return copy;
}

// The inputs of all sequences that can be decoded, behind each other.
struct Batch {
  std::vector<size_t> numbers;  // of the sequences that are in it
  std::vector<uint32_t> lengths;
  Matrix rows;

  ConstMatrixRef Wanted(ConstMatrixRef all, size_t i, uint32_t first_wanted) const {
    size_t row = first_wanted;
    for (size_t before = 0; before < i; ++before) row += lengths[before];
    return {all.row(row), lengths[i] - first_wanted, all.cols};
  }
};

absl::Status Decode(const ReplayedSequence& sequence, MatrixRef out) {
  size_t row = 0;
  for (const CodedRows& piece : sequence.inputs) {
    RETURN_IF_ERROR(
        DecodeRows(piece.rows, piece.basis, {out.row(row), piece.rows.size(), out.cols}));
    row += piece.rows.size();
  }
  return CheckFinite(out);
}

Batch DecodeAll(absl::Span<const ReplayedSequence> sequences, size_t d_model,
                std::vector<ReplayedRows>& results) {
  Batch batch;
  size_t rows = 0;
  for (const ReplayedSequence& sequence : sequences) rows += sequence.positions();
  Matrix all(rows, d_model);
  size_t row = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const uint32_t positions = sequences[i].positions();
    results[i].undecodable = Decode(sequences[i], {all.row(row), positions, d_model});
    if (!results[i].undecodable.ok()) continue;
    batch.numbers.push_back(i);
    batch.lengths.push_back(positions);
    row += positions;
  }
  batch.rows = Matrix(row, d_model);
  std::copy_n(all.ref().data, row * d_model, batch.rows.ref().data);
  return batch;
}

}  // namespace

absl::Status DecodeRows(absl::Span<const CodedRow> rows, const BasisPtr& basis, MatrixRef out) {
  CHECK(out.rows == rows.size());
  ActivationCodec codec(out.cols, basis);
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::optional<CodecSetting> setting = CodecFromNumber(rows[i].codec);
    if (!setting) {
      return absl::InvalidArgumentError(
          absl::StrCat("row ", i, " is coded as ", rows[i].codec, ", which is no codec"));
    }
    const absl::Status read =
        codec.Decode(*setting, AsBytes(rows[i].bytes), {out.row(i), 1, out.cols});
    if (!read.ok()) {
      return absl::Status(read.code(), absl::StrCat("row ", i, ": ", read.message()));
    }
  }
  return absl::OkStatus();
}

std::vector<CodedRow> EncodeRows(ConstMatrixRef rows, CodecSetting setting, const BasisPtr& basis) {
  ActivationCodec codec(rows.cols, basis);
  std::vector<CodedRow> coded(rows.rows);
  for (size_t i = 0; i < rows.rows; ++i) {
    coded[i].codec = setting.number();
    codec.Encode(setting, {rows.row(i), 1, rows.cols}, coded[i].bytes);
  }
  return coded;
}

absl::StatusOr<std::vector<ReplayedRows>> ReplayStage(
    StageReplay& replay, const ReplayedStage& stage, absl::Span<const ReplayedSequence> sequences,
    bool keep_layers, const std::function<absl::Status(double share)>& before_step) {
  const size_t d_model = replay.config().d_model;
  if (stage.output_codec.needs_basis() && stage.output_basis == nullptr) {
    return absl::InvalidArgumentError("the codec of the outputs needs a basis");
  }
  for (const ReplayedSequence& sequence : sequences) {
    const uint32_t positions = sequence.positions();
    if (sequence.first_wanted < positions && positions <= replay.config().context) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("outputs from ", sequence.first_wanted, " on of ", positions, " positions"));
  }
  std::vector<ReplayedRows> results(sequences.size());
  Batch batch = DecodeAll(sequences, d_model, results);
  if (batch.numbers.empty()) return results;
  ReplayHooks hooks;
  hooks.before_step = before_step;
  if (keep_layers) {
    hooks.after_layer = [&](uint32_t, ConstMatrixRef rows) {
      for (size_t i = 0; i < batch.numbers.size(); ++i) {
        const size_t number = batch.numbers[i];
        const ConstMatrixRef wanted = batch.Wanted(rows, i, sequences[number].first_wanted);
        results[number].after_layer.push_back(CopyOf(wanted));
      }
    };
  }
  RETURN_IF_ERROR(replay.Run(stage.layers, stage.kv_type, batch.lengths, batch.rows.ref(), hooks));
  const ConstMatrixRef rows = batch.rows.ref();
  for (size_t i = 0; i < batch.numbers.size(); ++i) {
    ReplayedRows& result = results[batch.numbers[i]];
    result.values = CopyOf(batch.Wanted(rows, i, sequences[batch.numbers[i]].first_wanted));
    result.coded = EncodeRows(result.values.ref(), stage.output_codec, stage.output_basis);
  }
  return results;
}

}  // namespace efedllm
