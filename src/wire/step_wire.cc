#include "wire/step_wire.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/support/slice.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "cluster/step_check.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "efedllm/stage.pb.h"
#include "wire/frame.h"

namespace efedllm {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;
using google::protobuf::io::CodedOutputStream;

// Of the small messages: varints of 64 and 32 bits take at most 10 and 5 bytes, and a tag one.
constexpr size_t kMaxSpanBytes = 25;
constexpr size_t kMaxTrimBytes = 24;
constexpr size_t kMaxForkBytes = 32;
constexpr size_t kMaxTimingBytes = 35;
constexpr size_t kMaxReplayStagesBytes = 2 * kMaxStages;
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

// Modulo 2^64, with small numbers for small differences in either direction.
uint64_t Difference(uint64_t value, uint64_t before) {
  return WireFormatLite::ZigZagEncode64(static_cast<int64_t>(value - before));
}
uint64_t Add(uint64_t before, uint64_t difference) {
  return before + static_cast<uint64_t>(WireFormatLite::ZigZagDecode64(difference));
}

v1::StepFrame Header(const Step& step) {
  v1::StepFrame frame;
  frame.set_epoch(step.epoch.v);
  frame.set_step(step.id.v);
  uint64_t sequence = 0;
  for (const SequenceSpan& span : step.spans) {
    const bool several = span.tokens != 1;
    frame.add_spans(Difference(span.sequence.v, sequence));
    frame.add_spans(uint64_t{span.first_position} << 1 | (several ? 1 : 0));
    if (several) frame.add_spans(span.tokens);
    sequence = span.sequence.v;
  }
  for (const SequenceTrim& trim : step.trims) {
    v1::SequenceTrim* out = frame.add_trims();
    out->set_sequence(trim.sequence.v);
    out->set_length(trim.length);
  }
  for (const SequenceFork& fork : step.forks) {
    v1::SequenceFork* out = frame.add_forks();
    out->set_sequence(fork.sequence.v);
    out->set_parent(fork.parent.v);
    out->set_tokens(fork.tokens);
  }
  frame.set_forget_others(step.forget_others);
  for (const uint32_t stage : step.replay_stages) frame.add_replay_stages(stage);
  return frame;
}

void AddTimings(absl::Span<const StageTiming> timings, v1::StepFrame& frame) {
  uint64_t received = 0;
  for (const StageTiming& timing : timings) {
    const auto micros = static_cast<uint64_t>(timing.received_micros);
    frame.add_timings(Difference(micros, received));
    for (const uint32_t number : {timing.decode_micros, timing.queue_micros, timing.compute_micros,
                                  timing.encode_micros, timing.received_bytes}) {
      frame.add_timings(number);
    }
    received = micros;
  }
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
    frame_.step.trims.clear();
    frame_.step.forks.clear();
    frame_.step.forget_others = false;
    frame_.step.replay_stages.clear();
    frame_.timings.clear();
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
        return ReadSpans();
      case BytesTag(v1::StepFrame::kTrimsFieldNumber):
        return ReadTrim();
      case BytesTag(v1::StepFrame::kForksFieldNumber):
        return ReadFork();
      case BytesTag(v1::StepFrame::kTimingsFieldNumber):
        return ReadTimings();
      case VarintTag(v1::StepFrame::kForgetOthersFieldNumber):
        return ReadForgetOthers();
      case BytesTag(v1::StepFrame::kReplayStagesFieldNumber):
        return ReadReplayStages();
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

  absl::Status ReadForgetOthers() {
    uint64_t number = 0;
    RETURN_IF_ERROR(ReadNumber(number));
    frame_.step.forget_others = number != 0;
    return absl::OkStatus();
  }

  // Packed, as our own frames have them.
  absl::Status ReadReplayStages() {
    ASSIGN_OR_RETURN(const absl::Span<const uint8_t> bytes, ReadBytes(kMaxReplayStagesBytes));
    CodedInputStream in(bytes.data(), static_cast<int>(bytes.size()));
    std::vector<uint32_t>& stages = frame_.step.replay_stages;
    while (static_cast<size_t>(in.CurrentPosition()) < bytes.size()) {
      uint32_t stage = 0;
      if (!in.ReadVarint32(&stage)) return Malformed("a stage is cut off");
      if (stage >= kMaxStages) return Malformed(absl::StrCat("stage ", stage, " of a replay"));
      stages.push_back(stage);
    }
    return absl::OkStatus();
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

  // One more of the small messages, of which there may be `most`.
  template <typename Message>
  absl::Status ReadSmall(size_t have, size_t most, size_t max_bytes, const char* name,
                         Message& message) {
    if (have >= most) return Malformed(absl::StrCat("more than ", most, " ", name, "s"));
    ASSIGN_OR_RETURN(const absl::Span<const uint8_t> bytes, ReadBytes(max_bytes));
    return message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))
               ? absl::OkStatus()
               : Malformed(absl::StrCat("a ", name, " is not readable"));
  }

  absl::Status ReadSpans() {
    ASSIGN_OR_RETURN(const absl::Span<const uint8_t> bytes,
                     ReadBytes(kMaxSpanBytes * limits_.max_spans));
    CodedInputStream in(bytes.data(), static_cast<int>(bytes.size()));
    std::vector<SequenceSpan>& spans = frame_.step.spans;
    while (static_cast<size_t>(in.CurrentPosition()) < bytes.size()) {
      if (spans.size() >= limits_.max_spans) {
        return Malformed(absl::StrCat("more than ", limits_.max_spans, " sequences"));
      }
      uint64_t sequence = 0;
      uint64_t position = 0;
      uint32_t tokens = 1;
      const bool read = in.ReadVarint64(&sequence) && in.ReadVarint64(&position) &&
                        ((position & 1) == 0 || in.ReadVarint32(&tokens));
      if (!read || position >> 1 > UINT32_MAX) return Malformed("a sequence is not readable");
      spans.push_back({SequenceId{Add(spans.empty() ? 0 : spans.back().sequence.v, sequence)},
                       static_cast<uint32_t>(position >> 1), tokens});
    }
    return absl::OkStatus();
  }

  absl::Status ReadTrim() {
    RETURN_IF_ERROR(
        ReadSmall(frame_.step.trims.size(), limits_.max_trims, kMaxTrimBytes, "trim", trim_));
    frame_.step.trims.push_back({SequenceId{trim_.sequence()}, trim_.length()});
    return absl::OkStatus();
  }

  absl::Status ReadFork() {
    RETURN_IF_ERROR(
        ReadSmall(frame_.step.forks.size(), limits_.max_forks, kMaxForkBytes, "fork", fork_));
    frame_.step.forks.push_back(
        {SequenceId{fork_.sequence()}, SequenceId{fork_.parent()}, fork_.tokens()});
    return absl::OkStatus();
  }

  absl::Status ReadTimings() {
    ASSIGN_OR_RETURN(const absl::Span<const uint8_t> bytes,
                     ReadBytes(kMaxTimingBytes * kMaxStages));
    CodedInputStream in(bytes.data(), static_cast<int>(bytes.size()));
    std::vector<StageTiming>& timings = frame_.timings;
    while (static_cast<size_t>(in.CurrentPosition()) < bytes.size()) {
      if (timings.size() >= kMaxStages) {
        return Malformed(absl::StrCat("more than ", kMaxStages, " timings"));
      }
      const auto before =
          static_cast<uint64_t>(timings.empty() ? 0 : timings.back().received_micros);
      StageTiming& timing = timings.emplace_back();
      uint64_t received = 0;
      bool read = in.ReadVarint64(&received);
      for (uint32_t* number : {&timing.decode_micros, &timing.queue_micros, &timing.compute_micros,
                               &timing.encode_micros, &timing.received_bytes}) {
        read = read && in.ReadVarint32(number);
      }
      if (!read) return Malformed("a timing is cut off");
      timing.received_micros = static_cast<int64_t>(Add(before, received));
    }
    return absl::OkStatus();
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
  // Reused from one to the next.
  v1::SequenceTrim trim_;
  v1::SequenceFork fork_;
};

absl::Status TakeFailure(const FrameReader& reader, StepFrame& frame) {
  const int32_t code = reader.failure().code();
  if (code <= 0 || code > static_cast<int32_t>(absl::StatusCode::kUnauthenticated)) {
    return Malformed("its failure has no such code");
  }
  if (!reader.activations().empty()) return Malformed("it has a failure and activations too");
  frame.failure = absl::Status(static_cast<absl::StatusCode>(code),
                               Printable(reader.failure().message(), kMaxFailureMessageBytes));
  frame.failed_node = NodeId{reader.failure().node()};
  frame.codec = CodecSetting();
  frame.encoded_bytes = 0;
  frame.hidden = Matrix();
  return absl::OkStatus();
}

absl::Status TakeActivations(const FrameReader& reader, ActivationCodec& codec, StepFrame& frame,
                             EncodedRows* encoded_rows) {
  const std::optional<CodecSetting> setting = CodecFromNumber(reader.codec());
  if (!setting) return Malformed(absl::StrCat("codec ", reader.codec(), " is unknown"));
  const size_t d_model = codec.d_model();
  // A replay's frame has none where the next stage does not compute.
  const bool none = frame.step.replay() && reader.activations().empty();
  const size_t rows = none ? 0 : frame.step.tokens();
  if (reader.activations().size() > MaxEncodedBytes(rows, d_model)) {
    return Malformed(absl::StrCat("the activations have ", reader.activations().size(),
                                  " bytes for ", rows, " tokens"));
  }
  if (frame.hidden.rows() != rows || frame.hidden.cols() != d_model) {
    frame.hidden = Matrix(rows, d_model);
  }
  frame.failure = absl::OkStatus();
  frame.failed_node = NodeId{0};
  frame.codec = *setting;
  frame.encoded_bytes = reader.activations().size();
  if (rows == 0 && reader.activations().empty()) return absl::OkStatus();
  const absl::Status decoded =
      codec.Decode(*setting, reader.activations(), frame.hidden.ref(), encoded_rows);
  return decoded.ok() ? decoded
                      : absl::Status(decoded.code(), Malformed(decoded.message()).message());
}

}  // namespace

grpc::ByteBuffer StepToWire(const Step& step, std::string activations, CodecSetting codec,
                            absl::Span<const StageTiming> timings) {
  v1::StepFrame frame = Header(step);
  AddTimings(timings, frame);
  frame.set_codec(codec.number());
  std::string head = frame.SerializeAsString();
  if (activations.empty()) return SealFrame(std::move(head));
  // The activations are the last field before the checksum, in a slice of their own: never copied
  // again.
  uint8_t prefix[16];
  uint8_t* end = CodedOutputStream::WriteVarint32ToArray(
      BytesTag(v1::StepFrame::kActivationsFieldNumber), prefix);
  end = CodedOutputStream::WriteVarint64ToArray(activations.size(), end);
  head.append(prefix, end);
  return SealFrame(std::move(head), std::move(activations));
}

grpc::ByteBuffer StepFailureToWire(const Step& step, NodeId node, const absl::Status& failure,
                                   absl::Span<const StageTiming> timings) {
  v1::StepFrame frame = Header(step);
  AddTimings(timings, frame);
  frame.mutable_failure()->set_node(node.v);
  frame.mutable_failure()->set_code(static_cast<int32_t>(failure.code()));
  frame.mutable_failure()->set_message(
      Printable(failure.message(), kMaxFailureMessageBytes / 4));  // \xNN takes four bytes
  return SealFrame(frame.SerializeAsString());
}

size_t MaxStepFrameBytes(const StepLimits& limits, size_t d_model) {
  constexpr size_t kOtherFieldsBytes = 128;
  constexpr size_t kPrefixBytes = 2;  // tag and length of a small message
  return kOtherFieldsBytes + kMaxFailureBytes + limits.max_spans * kMaxSpanBytes +
         limits.max_trims * (kMaxTrimBytes + kPrefixBytes) +
         limits.max_forks * (kMaxForkBytes + kPrefixBytes) + kMaxStages * kMaxTimingBytes +
         kMaxReplayStagesBytes + kChecksumBytes + MaxEncodedBytes(limits.max_tokens, d_model);
}

absl::Status StepFromWire(const grpc::ByteBuffer& bytes, const StepLimits& limits,
                          ActivationCodec& codec, StepFrame& frame, EncodedRows* rows) {
  const size_t d_model = codec.d_model();
  if (bytes.Length() > MaxStepFrameBytes(limits, d_model) || bytes.Length() > INT32_MAX) {
    return Malformed(absl::StrCat("it has ", bytes.Length(), " bytes; at most ",
                                  MaxStepFrameBytes(limits, d_model), " can be right"));
  }
  grpc::Slice memory;
  ASSIGN_OR_RETURN(const absl::Span<const uint8_t> body, OpenFrame(bytes, memory));
  FrameReader reader(body, limits, frame);
  RETURN_IF_ERROR(reader.Read());
  RETURN_IF_ERROR(CheckStep(frame.step, limits));
  return reader.has_failure() ? TakeFailure(reader, frame)
                              : TakeActivations(reader, codec, frame, rows);
}

}  // namespace efedllm
