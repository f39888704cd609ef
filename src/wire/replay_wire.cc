#include "wire/replay_wire.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cluster/kv_rule.h"
#include "common/status_macros.h"
#include "efedllm/replay.pb.h"
#include "wire/field_checks.h"
#include "wire/frame.h"
#include "wire/model_wire.h"
#include "wire/tensor_wire.h"

namespace efedllm {
namespace {

constexpr absl::string_view kDomain = "eFedLLM replay 1\n";
// Chunk digests of the tensors of some hundred GiB, and what else a question has.
constexpr size_t kMaxRequestBytes = 16 << 20;
constexpr uint64_t kTensorsPerLayer = 24;
constexpr size_t kReplyOverhead = 256;

absl::Status Malformed(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("malformed replay: ", what));
}

absl::Span<const uint8_t> BytesOf(absl::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

v1::ReplayQuestion QuestionToWire(const ReplayQuestion& question) {
  v1::ReplayQuestion message;
  *message.mutable_model() = ToWire(question.config);
  message.set_first_layer(question.layers.first);
  message.set_last_layer(question.layers.last);
  for (const TensorSpec& spec : question.tensors) *message.add_tensors() = ToWire(spec);
  message.set_through_layer(question.through);
  message.set_kv_type(static_cast<uint32_t>(question.kv_type));
  message.set_positions(question.positions);
  message.set_first_wanted(question.first_wanted);
  return message;
}

absl::StatusOr<ReplayQuestion> QuestionFromWire(const v1::ReplayQuestion& message) {
  ReplayQuestion question;
  ASSIGN_OR_RETURN(question.config, FromWire(message.model()));
  const uint32_t first = message.first_layer(), last = message.last_layer();
  RETURN_IF_ERROR(CheckRange("last_layer", last, 1, question.config.layers));
  RETURN_IF_ERROR(CheckRange("first_layer", first, 0, last - 1));
  RETURN_IF_ERROR(CheckRange("through_layer", message.through_layer(), first + 1, last));
  question.layers = {first, last};
  question.through = message.through_layer();
  RETURN_IF_ERROR(CheckRange("the number of tensors", static_cast<uint64_t>(message.tensors_size()),
                             1, uint64_t{question.layers.size()} * kTensorsPerLayer + 1));
  question.tensors.reserve(static_cast<size_t>(message.tensors_size()));
  for (const v1::TensorSpec& tensor : message.tensors()) {
    ASSIGN_OR_RETURN(TensorSpec spec, FromWire(tensor));
    question.tensors.push_back(std::move(spec));
  }
  RETURN_IF_ERROR(CheckRange("kv_type", message.kv_type(), 0, kKvTypeCount - 1));
  question.kv_type = static_cast<KvType>(message.kv_type());
  RETURN_IF_ERROR(CheckKvType(question.config, question.kv_type));
  RETURN_IF_ERROR(CheckRange("positions", message.positions(), 1, question.config.context));
  RETURN_IF_ERROR(CheckRange("first_wanted", message.first_wanted(), 0, message.positions() - 1));
  question.positions = message.positions();
  question.first_wanted = message.first_wanted();
  return question;
}

}  // namespace

Sha256Digest DigestOfValues(ConstMatrixRef rows) {
  return Sha256({reinterpret_cast<const uint8_t*>(rows.data), rows.span().size() * sizeof(float)});
}

Sha256Digest ReplayCommitment(const ReplayNonce& nonce, absl::Span<const Sha256Digest> after_layer,
                              const Sha256Digest& rows) {
  Sha256Hasher hasher;
  hasher.Add(BytesOf(kDomain));
  hasher.Add(nonce);
  for (const Sha256Digest& digest : after_layer) hasher.Add(digest);
  hasher.Add(rows);
  return hasher.Finish();
}

grpc::ByteBuffer ToWire(const ReplayRequest& request) {
  v1::ReplayRequest message;
  message.set_question(request.question);
  if (const auto* question = std::get_if<ReplayQuestion>(&request.what)) {
    *message.mutable_ask() = QuestionToWire(*question);
  } else if (const auto* inputs = std::get_if<ReplayInputs>(&request.what)) {
    message.mutable_inputs()->set_first_position(inputs->first_position);
    message.mutable_inputs()->set_rows(inputs->rows);
  } else if (const auto* reveal = std::get_if<ReplayReveal>(&request.what)) {
    message.mutable_reveal()->set_first_position(reveal->first_position);
  } else {
    message.mutable_commit();
  }
  return SealMessage(message);
}

absl::StatusOr<ReplayRequest> ReplayRequestFromWire(const grpc::ByteBuffer& bytes) {
  v1::ReplayRequest message;
  if (bytes.Length() > kMaxRequestBytes) return Malformed("the request is too long");
  RETURN_IF_ERROR(OpenMessage(bytes, message));
  ReplayRequest request;
  request.question = message.question();
  switch (message.message_case()) {
    case v1::ReplayRequest::kAsk: {
      ASSIGN_OR_RETURN(request.what, QuestionFromWire(message.ask()));
      return request;
    }
    case v1::ReplayRequest::kInputs:
      request.what = ReplayInputs{message.inputs().first_position(),
                                  std::move(*message.mutable_inputs()->mutable_rows())};
      return request;
    case v1::ReplayRequest::kCommit:
      request.what = ReplayCommit();
      return request;
    case v1::ReplayRequest::kReveal:
      request.what = ReplayReveal{message.reveal().first_position()};
      return request;
    case v1::ReplayRequest::MESSAGE_NOT_SET:
      break;
  }
  return Malformed("a request for nothing");
}

grpc::ByteBuffer ToWire(const ReplayReply& reply) {
  v1::ReplayReply message;
  if (reply.commitment) {
    message.set_commitment(std::string(reply.commitment->begin(), reply.commitment->end()));
  }
  message.set_nonce(std::string(reply.nonce.begin(), reply.nonce.end()));
  for (const Sha256Digest& digest : reply.after_layer) {
    message.mutable_after_layer()->append(digest.begin(), digest.end());
  }
  message.set_rows(reply.rows);
  return SealMessage(message);
}

absl::StatusOr<ReplayReply> ReplayReplyFromWire(const grpc::ByteBuffer& bytes, size_t most_layers,
                                                size_t most_row_bytes) {
  v1::ReplayReply message;
  if (bytes.Length() > most_layers * sizeof(Sha256Digest) + most_row_bytes + kReplyOverhead) {
    return Malformed("the answer is too long");
  }
  RETURN_IF_ERROR(OpenMessage(bytes, message));
  ReplayReply reply;
  const std::string& commitment = message.commitment();
  if (!commitment.empty()) {
    if (commitment.size() != sizeof(Sha256Digest)) return Malformed("its commitment");
    std::copy(commitment.begin(), commitment.end(), reply.commitment.emplace().begin());
  }
  if (message.nonce().size() != reply.nonce.size()) return Malformed("its nonce");
  std::copy(message.nonce().begin(), message.nonce().end(), reply.nonce.begin());
  const std::string& digests = message.after_layer();
  const size_t layers = digests.size() / sizeof(Sha256Digest);
  if (layers > most_layers || digests.size() % sizeof(Sha256Digest) != 0) {
    return Malformed("digests of its layers");
  }
  reply.after_layer.resize(layers);
  for (size_t i = 0; i < layers; ++i) {
    std::copy_n(digests.begin() + static_cast<ptrdiff_t>(i * sizeof(Sha256Digest)),
                sizeof(Sha256Digest), reply.after_layer[i].begin());
  }
  if (message.rows().size() > most_row_bytes) return Malformed("too many rows");
  reply.rows = std::move(*message.mutable_rows());
  return reply;
}

}  // namespace efedllm
