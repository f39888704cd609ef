#include "svd/codec.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "svd/entropy_codec.h"
#include "svd/plain_rows.h"
#include "svd/row_transform.h"

namespace efedllm {
namespace {

absl::string_view AsText(absl::Span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

absl::string_view CodecName(CodecId codec) {
  switch (codec) {
    case CodecId::kF32:
      return "f32";
    case CodecId::kF16:
      return "f16";
    case CodecId::kInt8:
      return "int8";
    case CodecId::kScalar:
      return "scalar";
    case CodecId::kKlt:
      return "klt";
  }
  return "?";
}

std::optional<CodecId> CodecFromName(absl::string_view name) {
  for (const CodecId id :
       {CodecId::kF32, CodecId::kF16, CodecId::kInt8, CodecId::kScalar, CodecId::kKlt}) {
    if (name == CodecName(id)) return id;
  }
  return std::nullopt;
}

uint32_t StepIndexBelow(float step) {
  uint32_t index = 0;
  while (index < kMaxStepIndex && StepSize(index) > step) ++index;
  return index;
}

std::optional<CodecSetting> CodecFromNumber(uint32_t number) {
  const uint32_t step = number >> 8;
  const uint32_t id = number & 0xff;
  if (id < static_cast<uint32_t>(CodecId::kF32) || id > static_cast<uint32_t>(CodecId::kKlt)) {
    return std::nullopt;
  }
  const CodecSetting setting{static_cast<CodecId>(id), static_cast<uint8_t>(step)};
  if (step > (setting.needs_basis() ? kMaxStepIndex : 0)) return std::nullopt;
  return setting;
}

std::string CodecLabel(CodecSetting setting) {
  return setting.needs_basis()
             ? absl::StrCat(std::string(CodecName(setting.id)), "/", StepSize(setting.step))
             : std::string(CodecName(setting.id));
}

uint64_t MaxEncodedBytes(size_t rows, size_t cols) {
  return uint64_t{rows} * (uint64_t{cols} * sizeof(float) + 16) + 64;
}

struct ActivationCodec::State {
  // The codec of a setting that needs a basis: that of the last call, as settings seldom change.
  EntropyCodec& EntropyCodecOf(CodecSetting setting);

  size_t d_model = 0;
  std::shared_ptr<const BoundaryBasis> basis;
  std::optional<PackedMatrix> forward, backward;
  std::unique_ptr<EntropyCodec> entropy;
};

EntropyCodec& ActivationCodec::State::EntropyCodecOf(CodecSetting setting) {
  if (entropy != nullptr && entropy->setting() == setting) return *entropy;
  if (setting.id == CodecId::kKlt && !forward) {
    forward.emplace(basis->forward, basis->coefficients(), true);
    backward.emplace(basis->backward, basis->coefficients(), false);
  }
  entropy = std::make_unique<EntropyCodec>(*basis, setting, forward ? &*forward : nullptr,
                                           backward ? &*backward : nullptr);
  return *entropy;
}

ActivationCodec::ActivationCodec(size_t d_model, std::shared_ptr<const BoundaryBasis> basis)
    : state_(std::make_unique<State>()) {
  CHECK(basis == nullptr || basis->d_model == d_model);
  state_->d_model = d_model;
  state_->basis = std::move(basis);
}
ActivationCodec::~ActivationCodec() = default;
ActivationCodec::ActivationCodec(ActivationCodec&&) noexcept = default;
ActivationCodec& ActivationCodec::operator=(ActivationCodec&&) noexcept = default;

size_t ActivationCodec::d_model() const { return state_->d_model; }
const BoundaryBasis* ActivationCodec::basis() const { return state_->basis.get(); }

EncodingReport ActivationCodec::Encode(CodecSetting setting, ConstMatrixRef activations,
                                       std::string& out, EncodedRows* rows, ErrorMeasure measure) {
  CHECK(activations.cols == state_->d_model);
  if (setting.needs_basis()) {
    CHECK(state_->basis != nullptr);
    return state_->EntropyCodecOf(setting).Encode(activations, measure, out, rows);
  }
  EncodingReport report;
  for (size_t r = 0; r < activations.rows; ++r) {
    const size_t begin = out.size();
    const PlainRow row = AppendPlainRow(setting.id, {activations.row(r), activations.cols}, out);
    report.squared_error += row.squared_error;
    report.plain_rows += row.codec == setting.id ? 0 : 1;
    if (rows != nullptr) rows->Add(absl::string_view(out).substr(begin));
  }
  return report;
}

absl::Status ActivationCodec::Decode(CodecSetting setting, absl::Span<const uint8_t> bytes,
                                     MatrixRef out, EncodedRows* rows) {
  if (out.cols != state_->d_model) {
    return absl::InvalidArgumentError(absl::StrCat("the activations have ", out.cols,
                                                   " dimensions, the boundary ", state_->d_model));
  }
  if (setting.needs_basis()) {
    if (state_->basis == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the activations are coded as ", CodecLabel(setting), " and this boundary has no basis"));
    }
    return state_->EntropyCodecOf(setting).Decode(bytes, out, rows);
  }
  absl::Span<const uint8_t> rest = bytes;
  for (size_t r = 0; r < out.rows; ++r) {
    const absl::Span<const uint8_t> before = rest;
    RETURN_IF_ERROR(ReadPlainRow(setting.id, rest, {out.row(r), out.cols}));
    if (rows != nullptr) rows->Add(AsText(before.subspan(0, before.size() - rest.size())));
  }
  if (!rest.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the activations have ", bytes.size(), " bytes; as ", CodecLabel(setting),
                     " [", out.rows, ", ", out.cols, "] have ", bytes.size() - rest.size()));
  }
  return absl::OkStatus();
}

}  // namespace efedllm
