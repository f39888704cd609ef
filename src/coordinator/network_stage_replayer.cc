#include "coordinator/network_stage_replayer.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/clock.h"
#include "common/random.h"
#include "common/status_macros.h"
#include "net/audit_call.h"
#include "wire/replay_wire.h"

namespace efedllm {
namespace {

constexpr absl::Duration kBetweenLooks = absl::Milliseconds(10);

// What a node says instead of an answer is its own choice; that it shows something wrong is ours to
// say.
absl::Status WhyNot(const absl::Status& status) {
  const bool away = absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
  return away ? status : absl::NotFoundError(status.message());
}

// One question to one node.
class Questioning {
 public:
  Questioning(AuditCaller& node, const NetworkStageReplayerOptions& options,
              const std::atomic<bool>& cancelled, size_t layers, size_t most_row_bytes)
      : node_(node),
        options_(options),
        cancelled_(cancelled),
        layers_(layers),
        most_row_bytes_(most_row_bytes),
        number_(SecureRandomU64()) {}

  absl::StatusOr<ReplayReply> Say(decltype(ReplayRequest::what) what) {
    if (cancelled_) return absl::CancelledError("nobody waits for it any more");
    const absl::StatusOr<grpc::ByteBuffer> answer =
        node_.Ask(ToWire(ReplayRequest{number_, std::move(what)}), options_.call);
    if (!answer.ok()) return WhyNot(answer.status());
    absl::StatusOr<ReplayReply> reply = ReplayReplyFromWire(*answer, layers_, most_row_bytes_);
    if (!reply.ok()) return absl::DataLossError(reply.status().message());
    return reply;
  }

  absl::Status SendInputs(ConstMatrixRef inputs, size_t piece_rows) {
    const absl::Time until = SteadyNow() + options_.transfer;
    for (size_t first = 0; first < inputs.rows; first += piece_rows) {
      if (SteadyNow() > until) return absl::DeadlineExceededError("the inputs take too long");
      const size_t rows = std::min(piece_rows, inputs.rows - first);
      ReplayInputs piece;
      piece.first_position = static_cast<uint32_t>(first);
      piece.rows.assign(reinterpret_cast<const char*>(inputs.row(first)),
                        rows * inputs.cols * sizeof(float));
      RETURN_IF_ERROR(Say(std::move(piece)).status());
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Sha256Digest> AwaitCommitment(absl::Duration patience) {
    const absl::Time until = SteadyNow() + std::min(patience, options_.patience);
    while (SteadyNow() < until) {
      ASSIGN_OR_RETURN(const ReplayReply reply, Say(ReplayCommit()));
      if (reply.commitment) return *reply.commitment;
      absl::SleepFor(kBetweenLooks);  // where it does not wait itself
    }
    return absl::DeadlineExceededError("it takes too long to compute");
  }

  // rows: all that are wanted, the first at position `first`.
  absl::StatusOr<ReplayReply> ReceiveRows(uint32_t first, MatrixRef rows) {
    const absl::Time until = SteadyNow() + options_.transfer;
    const size_t row_bytes = rows.cols * sizeof(float);
    ReplayReply shown;
    for (size_t have = 0; have < rows.rows;) {
      if (SteadyNow() > until) return absl::DeadlineExceededError("the outputs take too long");
      ASSIGN_OR_RETURN(ReplayReply piece, Say(ReplayReveal{first + static_cast<uint32_t>(have)}));
      const size_t more = piece.rows.size() / row_bytes;
      if (more == 0 || piece.rows.size() % row_bytes != 0 || more > rows.rows - have) {
        return absl::DataLossError(absl::StrCat(piece.rows.size(), " bytes of outputs"));
      }
      std::memcpy(rows.row(have), piece.rows.data(), piece.rows.size());
      if (have == 0) shown = std::move(piece);
      have += more;
    }
    return shown;
  }

 private:
  AuditCaller& node_;
  const NetworkStageReplayerOptions& options_;
  const std::atomic<bool>& cancelled_;
  const size_t layers_, most_row_bytes_;
  const uint64_t number_;
};

bool AreFinite(ConstMatrixRef rows) {
  return std::all_of(rows.span().begin(), rows.span().end(),
                     [](float value) { return value - value == 0; });
}

}  // namespace

absl::StatusOr<StageReplayAnswer> NetworkStageReplayer::Ask(NodeId node, const std::string& address,
                                                            const StageReplayQuestion& question) {
  const ConstMatrixRef inputs = question.inputs;
  const LayerRange layers = {question.stage.layers.first, question.through};
  const size_t row_bytes = inputs.cols * sizeof(float);
  const size_t piece_rows = std::max<size_t>(kReplayPieceBytes / row_bytes, 1);
  AuditCaller caller(transport_, address, node, AuditMethod::kReplay);
  Questioning asked(caller, options_, cancelled_, layers.size(), piece_rows * row_bytes);
  ReplayQuestion what;
  what.config = question.stage.config;
  what.layers = question.stage.layers;
  what.tensors = question.stage.tensors;
  what.through = question.through;
  what.kv_type = question.stage.kv_type;
  what.positions = static_cast<uint32_t>(inputs.rows);
  what.first_wanted = question.first_wanted;
  RETURN_IF_ERROR(asked.Say(std::move(what)).status());
  RETURN_IF_ERROR(asked.SendInputs(inputs, piece_rows));
  ASSIGN_OR_RETURN(const Sha256Digest commitment, asked.AwaitCommitment(question.patience));
  StageReplayAnswer answer;
  answer.rows = Matrix(inputs.rows - question.first_wanted, inputs.cols);
  ASSIGN_OR_RETURN(ReplayReply shown, asked.ReceiveRows(question.first_wanted, answer.rows.ref()));
  if (shown.after_layer.size() != layers.size() ||
      ReplayCommitment(shown.nonce, shown.after_layer, DigestOfValues(answer.rows.ref())) !=
          commitment) {
    return absl::DataLossError("it shows other outputs than it had committed itself to");
  }
  if (!AreFinite(answer.rows.ref())) return absl::DataLossError("its outputs are not finite");
  answer.after_layer = std::move(shown.after_layer);
  return answer;
}

}  // namespace efedllm
