#include "wire/step_wire.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/support/slice.h>

#include <algorithm>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "efedllm/stage.pb.h"

namespace efedllm {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;
using google::protobuf::io::CodedOutputStream;

constexpr size_t kMaxSpanBytes = 32;  // three varints with their tags take at most 24
constexpr size_t kMaxFailureMessageBytes = 1024;
constexpr size_t kMaxFailureBytes = kMaxFailureMessageBytes + 64;

constexpr uint32_t VarintTag(int field) {
  return static_cast<uint32_t>(field) << 3 | WireFormatLite::WIRETYPE_VARINT;
}
constexpr uint32_t BytesTag(int field) {
  return static_cast<uint32_t>(field) << 3 | WireFormatLite::WIRETYPE_LENGTH_DELIMITED;
}

absl::Status Malformed(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("malformed step: ", what));
}

v1::StepFrame Header(const Step& step) {
  v1::StepFrame frame;
  frame.set_epoch(step.epoch.v);
  frame.set_step(step.id.v);
  for (const SequenceSpan& span : step.spans) {
    v1::SequenceSpan* out = frame.add_spans();
    out->set_sequence(span.sequence.v);
    out->set_first_position(span.first_position);
    out->set_tokens(span.tokens);
  }
  for (const SequenceId sequence : step.released) frame.add_released(sequence.v);
  return frame;
}

// A slice that owns the string: its bytes are not copied.
grpc::Slice TakeString(std::string text) {
  auto* owner = new std::string(std::move(text));
  return grpc::Slice(
      owner->data(), owner->size(), [](void* p) { delete static_cast<std::string*>(p); }, owner);
}

// Reads the frame's fields itself: every count is checked before something is kept for it, and the
// activations are left where they are. Repeated singular fields: the last counts, as in protobuf.
class FrameReader {
 public:
  FrameReader(absl::Span<const uint8_t> bytes, const StepLimits& limits, StepFrame& frame)
      : bytes_(bytes),
        in_(bytes.data(), static_cast<int>(bytes.size())),
        limits_(limits),
        frame_(frame) {}

  absl::Status Read() {
    frame_.step.epoch = Epoch{0};
    frame_.step.id = StepId{0};
    frame_.step.spans.clear();
    frame_.step.released.clear();
    while (const uint32_t tag = in_.ReadTag()) RETURN_IF_ERROR(ReadField(tag));
    return in_.ConsumedEntireMessage() ? absl::OkStatus() : Malformed("it is cut off");
  }

  uint32_t codec() const { return codec_; }
  absl::Span<const uint8_t> activations() const { return activations_; }
  bool has_failure() const { return has_failure_; }
  const v1::StepFailure& failure() const { return failure_; }

 private:
  absl::Status ReadField(uint32_t tag) {
    switch (tag) {
      case VarintTag(v1::StepFrame::kEpochFieldNumber):
        return ReadNumber(frame_.step.epoch.v);
      case VarintTag(v1::StepFrame::kStepFieldNumber):
        return ReadNumber(frame_.step.id.v);
      case BytesTag(v1::StepFrame::kSpansFieldNumber):
        return ReadSpan();
      case BytesTag(v1::StepFrame::kReleasedFieldNumber):
        return ReadReleasedList();
      case VarintTag(v1::StepFrame::kReleasedFieldNumber):
        return ReadReleased();
      case VarintTag(v1::StepFrame::kCodecFieldNumber):
        return ReadCodec();
      case BytesTag(v1::StepFrame::kActivationsFieldNumber): {
        ASSIGN_OR_RETURN(activations_, ReadBytes(bytes_.size()));
        return absl::OkStatus();
      }
      case BytesTag(v1::StepFrame::kFailureFieldNumber):
        return ReadFailure();
      default:
        return Malformed(absl::StrCat("field ", tag >> 3, " of type ", tag & 7, " is unknown"));
    }
  }

  absl::Status ReadNumber(uint64_t& value) {
    return in_.ReadVarint64(&value) ? absl::OkStatus() : Malformed("a number is cut off");
  }

  absl::Status ReadCodec() {
    uint64_t number = 0;
    RETURN_IF_ERROR(ReadNumber(number));
    codec_ = number <= UINT32_MAX ? static_cast<uint32_t>(number) : UINT32_MAX;
    return absl::OkStatus();
  }

  absl::StatusOr<absl::Span<const uint8_t>> ReadBytes(size_t max_size) {
    uint32_t size = 0;
    if (!in_.ReadVarint32(&size)) return Malformed("a length is cut off");
    const auto at = static_cast<size_t>(in_.CurrentPosition());
    if (size > max_size || size > bytes_.size() - at) {
      return Malformed(absl::StrCat("a field claims ", size, " bytes"));
    }
    in_.Skip(static_cast<int>(size));
    return bytes_.subspan(at, size);
  }

  absl::Status ReadSpan() {
    if (frame_.step.spans.size() >= limits_.max_spans) {
      return Malformed(absl::StrCat("more than ", limits_.max_spans, " sequences"));
    }
    ASSIGN_OR_RETURN(const absl::Span<const uint8_t> bytes, ReadBytes(kMaxSpanBytes));
    if (!span_.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
      return Malformed("a sequence is not readable");
    }
    frame_.step.spans.push_back(
        {SequenceId{span_.sequence()}, span_.first_position(), span_.tokens()});
    return absl::OkStatus();
  }

  absl::Status ReadReleased() {
    if (frame_.step.released.size() >= limits_.max_released) {
      return Malformed(absl::StrCat("more than ", limits_.max_released, " releases"));
    }
    SequenceId sequence;
    RETURN_IF_ERROR(ReadNumber(sequence.v));
    frame_.step.released.push_back(sequence);
    return absl::OkStatus();
  }

  absl::Status ReadReleasedList() {
    uint32_t size = 0;
    if (!in_.ReadVarint32(&size)) return Malformed("a length is cut off");
    const uint64_t end = uint64_t{size} + static_cast<uint64_t>(in_.CurrentPosition());
    if (end > bytes_.size()) return Malformed(absl::StrCat("a field claims ", size, " bytes"));
    while (static_cast<uint64_t>(in_.CurrentPosition()) < end) RETURN_IF_ERROR(ReadReleased());
    return static_cast<uint64_t>(in_.CurrentPosition()) == end
               ? absl::OkStatus()
               : Malformed("a release runs over its list");
  }

  absl::Status ReadFailure() {
    ASSIGN_OR_RETURN(const absl::Span<const uint8_t> bytes, ReadBytes(kMaxFailureBytes));
    has_failure_ = true;
    return failure_.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))
               ? absl::OkStatus()
               : Malformed("its failure is not readable");
  }

  const absl::Span<const uint8_t> bytes_;
  CodedInputStream in_;
  const StepLimits& limits_;
  StepFrame& frame_;

  uint32_t codec_ = 0;
  absl::Span<const uint8_t> activations_;
  bool has_failure_ = false;
  v1::StepFailure failure_;
  v1::SequenceSpan span_;  // reused from span to span
};

absl::Status CheckStep(const Step& step, const StepLimits& limits) {
  uint64_t tokens = 0;
  absl::InlinedVector<SequenceId, 64> sequences(step.released.begin(), step.released.end());
  for (const SequenceSpan& span : step.spans) {
    sequences.push_back(span.sequence);
    if (span.tokens == 0) return Malformed("a sequence has no tokens");
    if (uint64_t{span.first_position} + span.tokens > limits.max_position) {
      return Malformed(absl::StrCat("positions from ", span.first_position, " on for ", span.tokens,
                                    " tokens; the context has ", limits.max_position));
    }
    tokens += span.tokens;
  }
  if (tokens > limits.max_tokens) {
    return Malformed(absl::StrCat(tokens, " tokens; at most ", limits.max_tokens));
  }
  std::sort(sequences.begin(), sequences.end());
  if (std::adjacent_find(sequences.begin(), sequences.end()) != sequences.end()) {
    return Malformed("a sequence stands in it twice");
  }
  return absl::OkStatus();
}

absl::Status TakeFailure(const FrameReader& reader, StepFrame& frame) {
  const int32_t code = reader.failure().code();
  if (code <= 0 || code > static_cast<int32_t>(absl::StatusCode::kUnauthenticated)) {
    return Malformed("its failure has no such code");
  }
  if (!reader.activations().empty()) return Malformed("it has a failure and activations too");
  frame.failure = absl::Status(static_cast<absl::StatusCode>(code),
                               Printable(reader.failure().message(), kMaxFailureMessageBytes));
  frame.failed_node = NodeId{reader.failure().node()};
  frame.hidden = Matrix();
  return absl::OkStatus();
}

absl::Status TakeActivations(const FrameReader& reader, size_t d_model, StepFrame& frame) {
  const std::optional<CodecId> codec = CodecFromNumber(reader.codec());
  if (!codec) return Malformed(absl::StrCat("codec ", reader.codec(), " is unknown"));
  const size_t rows = frame.step.tokens();
  if (reader.activations().size() > MaxEncodedBytes(*codec, rows, d_model)) {
    return Malformed(absl::StrCat("the activations have ", reader.activations().size(),
                                  " bytes for ", rows, " tokens"));
  }
  if (frame.hidden.rows() != rows || frame.hidden.cols() != d_model) {
    frame.hidden = Matrix(rows, d_model);
  }
  frame.failure = absl::OkStatus();
  frame.failed_node = NodeId{0};
  const absl::Status decoded = DecodeActivations(*codec, reader.activations(), frame.hidden.ref());
  return decoded.ok() ? decoded : Malformed(decoded.message());
}

}  // namespace

grpc::ByteBuffer StepToWire(const Step& step, ConstMatrixRef hidden, CodecId codec) {
  v1::StepFrame frame = Header(step);
  frame.set_codec(static_cast<uint32_t>(codec));
  std::string activations;
  activations.reserve(MaxEncodedBytes(codec, hidden.rows, hidden.cols));
  EncodeActivations(codec, hidden, activations);
  if (activations.empty()) {
    const grpc::Slice only = TakeString(frame.SerializeAsString());
    return grpc::ByteBuffer(&only, 1);
  }
  // The activations are the last field on the wire, in a slice of their own: never copied again.
  std::string head = frame.SerializeAsString();
  uint8_t prefix[16];
  uint8_t* end = CodedOutputStream::WriteVarint32ToArray(
      BytesTag(v1::StepFrame::kActivationsFieldNumber), prefix);
  end = CodedOutputStream::WriteVarint64ToArray(activations.size(), end);
  head.append(prefix, end);
  const grpc::Slice slices[] = {TakeString(std::move(head)), TakeString(std::move(activations))};
  return grpc::ByteBuffer(slices, 2);
}

grpc::ByteBuffer StepFailureToWire(const Step& step, NodeId node, const absl::Status& failure) {
  v1::StepFrame frame = Header(step);
  frame.mutable_failure()->set_node(node.v);
  frame.mutable_failure()->set_code(static_cast<int32_t>(failure.code()));
  frame.mutable_failure()->set_message(
      Printable(failure.message(), kMaxFailureMessageBytes / 4));  // \xNN takes four bytes
  const grpc::Slice only = TakeString(frame.SerializeAsString());
  return grpc::ByteBuffer(&only, 1);
}

size_t MaxStepFrameBytes(const StepLimits& limits, size_t d_model) {
  constexpr size_t kMaxVarintBytes = 10;
  constexpr size_t kOtherFieldsBytes = 128;
  return kOtherFieldsBytes + kMaxFailureBytes + limits.max_spans * (kMaxSpanBytes + 2) +
         limits.max_released * (kMaxVarintBytes + 1) +
         MaxEncodedBytes(CodecId::kF32, limits.max_tokens, d_model);
}

absl::Status StepFromWire(const grpc::ByteBuffer& bytes, const StepLimits& limits, size_t d_model,
                          StepFrame& frame) {
  if (bytes.Length() > MaxStepFrameBytes(limits, d_model) || bytes.Length() > INT32_MAX) {
    return Malformed(absl::StrCat("it has ", bytes.Length(), " bytes; at most ",
                                  MaxStepFrameBytes(limits, d_model), " can be right"));
  }
  grpc::Slice slice;  // the transport's own memory if the frame came in one piece, else a copy
  if (bytes.Valid() && !bytes.TrySingleSlice(&slice).ok() &&
      !bytes.DumpToSingleSlice(&slice).ok()) {
    return Malformed("it can't be decompressed");
  }
  FrameReader reader({slice.begin(), slice.size()}, limits, frame);
  RETURN_IF_ERROR(reader.Read());
  RETURN_IF_ERROR(CheckStep(frame.step, limits));
  return reader.has_failure() ? TakeFailure(reader, frame)
                              : TakeActivations(reader, d_model, frame);
}

}  // namespace efedllm
