#include "worker/stage_keeper.h"

#include <spdlog/spdlog.h>

#include <new>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "common/random.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "model/weights.h"
#include "wire/step_wire.h"
#include "worker/backoff.h"

namespace efedllm {
namespace {

constexpr absl::Duration kEchoTimeout = absl::Milliseconds(1500);
constexpr size_t kMostMessageBytes = 500;

absl::Status OutOfMemory() {
  return absl::ResourceExhaustedError(
      "out of memory: this machine has less than it offers; start the worker with less --memory");
}

// Takes the last one of tensors, which holds the basis of this boundary.
absl::StatusOr<std::shared_ptr<const BoundaryBasis>> TakeBasis(uint32_t boundary, uint32_t d_model,
                                                               std::vector<StageTensor>& tensors) {
  const std::shared_ptr<const PackedTensor> data = std::move(tensors.back().data);
  tensors.pop_back();
  ASSIGN_OR_RETURN(BoundaryBasis basis, ParseBoundaryBasis(data->data()));
  if (basis.boundary != boundary || basis.d_model != d_model) {
    return absl::InvalidArgumentError(absl::StrCat("the basis of boundary ", boundary,
                                                   " is one of boundary ", basis.boundary, " with ",
                                                   basis.d_model, " dimensions"));
  }
  return std::make_shared<const BoundaryBasis>(std::move(basis));
}

// As FetchTensors put them behind the weights.
absl::StatusOr<StageBases> TakeBases(const Assignment& assignment,
                                     std::vector<StageTensor>& tensors) {
  const uint32_t d_model = assignment.config.d_model;
  StageBases bases;
  if (assignment.downstream_basis) {
    ASSIGN_OR_RETURN(bases.downstream, TakeBasis(assignment.layers.last, d_model, tensors));
  }
  if (assignment.upstream_basis) {
    ASSIGN_OR_RETURN(bases.upstream, TakeBasis(assignment.layers.first, d_model, tensors));
  }
  return bases;
}

}  // namespace

StageKeeper::StageKeeper(const StageKeeperOptions& options, const StageKeeperParts& parts,
                         ReportCallback report, HandedOverCallback handed_over)
    : options_(options),
      parts_(parts),
      report_(std::move(report)),
      handed_over_(std::move(handed_over)),
      prefetcher_(parts.stub, parts.transport, parts.cache) {
  thread_ = std::thread([this] { Loop(); });
}

StageKeeper::~StageKeeper() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
    Interrupt();
  }
  thread_.join();
}

void StageKeeper::Interrupt() {
  interrupted_ = true;
  if (cancel_) cancel_();
}

void StageKeeper::Assign(Assignment assignment) {
  absl::MutexLock lock(&mu_);
  jobs_.assignment = std::move(assignment);
  jobs_.imported.reset();
  Interrupt();
}

void StageKeeper::Release() {
  absl::MutexLock lock(&mu_);
  jobs_ = Jobs();
  jobs_.release = true;
  Interrupt();
}

void StageKeeper::HandOverKv(HandOver hand_over) {
  absl::MutexLock lock(&mu_);
  jobs_.hand_over = std::move(hand_over);
  if (prefetching_) Interrupt();
}

void StageKeeper::PrefetchWeights(Prefetch prefetch) {
  absl::MutexLock lock(&mu_);
  jobs_.prefetch = std::move(prefetch);
}

absl::Status StageKeeper::TakeKv(const grpc::ByteBuffer& frame) {
  return parts_.runner.Import(frame);
}

absl::Status StageKeeper::FinishKv(NodeId from, Epoch next_epoch) {
  RETURN_IF_ERROR(parts_.runner.FinishImport(next_epoch));
  spdlog::info("epoch {}: node {} handed its KV over", next_epoch.v, NodeName(from));
  absl::MutexLock lock(&mu_);
  jobs_.imported = next_epoch;
  if (prefetching_) Interrupt();
  return absl::OkStatus();
}

bool StageKeeper::HasWork() const {
  return stopping_ || jobs_.release || jobs_.assignment || jobs_.imported || jobs_.hand_over ||
         jobs_.prefetch;
}

StageKeeper::Jobs StageKeeper::TakeNext() {
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(this, &StageKeeper::HasWork));
  interrupted_ = stopping_;
  Jobs next;
  if (jobs_.release) {
    next.release = std::exchange(jobs_.release, false);
  } else if (jobs_.assignment) {
    next.assignment = std::exchange(jobs_.assignment, std::nullopt);
  } else if (jobs_.imported) {
    next.imported = std::exchange(jobs_.imported, std::nullopt);
  } else if (jobs_.hand_over) {
    next.hand_over = std::exchange(jobs_.hand_over, std::nullopt);
  } else {
    next.prefetch = std::exchange(jobs_.prefetch, std::nullopt);
  }
  prefetching_ = next.prefetch.has_value();
  return next;
}

bool StageKeeper::SetCancel(std::function<void()> cancel) {
  absl::MutexLock lock(&mu_);
  cancel_ = interrupted_ ? nullptr : std::move(cancel);
  return interrupted_;
}

void StageKeeper::Loop() {
  while (true) {
    Jobs job = TakeNext();
    {
      absl::MutexLock lock(&mu_);
      if (stopping_) break;
    }
    try {
      Do(std::move(job));
    } catch (const std::bad_alloc&) {
      spdlog::error("{}", std::string(OutOfMemory().message()));
    }
  }
  parts_.runner.Release();
}

void StageKeeper::Do(Jobs job) {
  if (job.release) return parts_.runner.Release();
  if (job.assignment) return TakeAssignment(*job.assignment);
  if (job.imported) return Tell(*job.imported, StageState::kReady, /*kept=*/true);
  if (job.hand_over) {
    HandedOver handed_over{.epoch = job.hand_over->epoch, .bytes = 0, .message = ""};
    const absl::Status sent = SendKv(*job.hand_over, handed_over.bytes);
    if (!sent.ok()) handed_over.message = Printable(sent.message(), kMostMessageBytes);
    return handed_over_(handed_over);
  }
  prefetcher_.Fetch(*job.prefetch, [this](WeightFetcher* fetcher) {
    if (fetcher == nullptr) return SetCancel(nullptr);
    return !SetCancel([fetcher] { fetcher->Cancel(); });
  });
}

void StageKeeper::TakeAssignment(const Assignment& assignment) {
  StageFault fault = StageFault::kSelf;
  bool kept = false;
  absl::Status up;
  try {
    up = BringUp(assignment, fault, kept);
  } catch (const std::bad_alloc&) {
    up = OutOfMemory();
  }
  if (up.ok()) {
    spdlog::info("epoch {}: ready{}", assignment.epoch.v, kept ? ", with its KV" : "");
    return Tell(assignment.epoch, StageState::kReady, kept);
  }
  if (absl::IsCancelled(up)) return;
  TellFailed(assignment.epoch, up, fault);
}

absl::Status StageKeeper::Check(const Assignment& assignment) const {
  RETURN_IF_ERROR(ValidateStageTensors(assignment.config, assignment.layers, assignment.tensors));
  uint64_t weights = 0;
  for (const TensorSpec& tensor : assignment.tensors) weights += PackedBytes(tensor);
  const uint64_t kv_per_token = StageKvBytesPerToken(
      assignment.config, assignment.kv_type, assignment.layers.size(), assignment.keep_outputs);
  // Divided, not multiplied: kv_tokens is the coordinator's word.
  const uint64_t room = options_.memory_bytes > weights ? options_.memory_bytes - weights : 0;
  if (weights > options_.memory_bytes || assignment.kv_tokens > room / kv_per_token) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the stage needs ", FormatBytes(weights), " for weights and ", FormatBytes(kv_per_token),
        " for each of ", assignment.kv_tokens, " KV tokens; this worker offers ",
        FormatBytes(options_.memory_bytes), " (--memory)"));
  }
  const uint64_t frame = MaxStepFrameBytes(assignment.limits, assignment.config.d_model);
  if (frame > options_.max_frame_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat("steps of ", FormatBytes(frame),
                                                     " are planned; this worker takes at most ",
                                                     FormatBytes(options_.max_frame_bytes)));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<StageTensor>> StageKeeper::FetchTensors(const Assignment& assignment,
                                                                   bool weights) {
  std::vector<TensorSpec> specs;
  if (weights) specs = assignment.tensors;
  for (const auto* basis : {&assignment.upstream_basis, &assignment.downstream_basis}) {
    if (*basis) specs.push_back(**basis);
  }
  if (specs.empty()) return std::vector<StageTensor>();  // a stage that goes on as it is
  const uint64_t total = bytes_.total;
  Tell(assignment.epoch, StageState::kFetching, /*kept=*/false);
  FetchProgress progress(total, options_.draw_bar, [&](const FetchBytes& bytes) {
    report_({.epoch = assignment.epoch,
             .state = StageState::kFetching,
             .bytes_held = bytes.held,
             .bytes_total = bytes.total,
             .bytes_fetched = bytes.fetched,
             .message = ""});
  });
  WeightFetcher fetcher(parts_.stub, parts_.transport, parts_.cache, progress);
  if (SetCancel([&fetcher] { fetcher.Cancel(); })) {
    return absl::CancelledError("another assignment came");
  }
  absl::Cleanup no_cancel = [this] { SetCancel(nullptr); };
  auto tensors = fetcher.Fetch(specs);
  std::move(no_cancel).Invoke();
  progress.Finish();
  bytes_ = progress.bytes();
  if (tensors.ok() && weights) {
    spdlog::info("weights of layers {} to {} are here: {} in {} tensors, {} fetched in {:.1f} s",
                 assignment.layers.first, assignment.layers.last - 1, FormatBytes(total),
                 assignment.tensors.size(), FormatBytes(bytes_.fetched),
                 absl::ToDoubleSeconds(progress.elapsed()));
  }
  return tensors;
}

absl::StatusOr<std::shared_ptr<StageExecutor>> StageKeeper::MakeExecutor(
    const Assignment& assignment, std::vector<StageTensor> weights) {
  if (parts_.runner.BytesBeside(assignment) > options_.memory_bytes) {
    if (const std::optional<Epoch> dropped = parts_.runner.DropRunning()) {
      spdlog::warn("epoch {}: the stage of epoch {} is dropped first; {} is too little for both",
                   assignment.epoch.v, dropped->v, FormatBytes(options_.memory_bytes));
    }
  }
  const StageOptions options{.config = assignment.config,
                             .layers = assignment.layers,
                             .kv_tokens = assignment.kv_tokens,
                             .kv_type = assignment.kv_type,
                             .limits = assignment.limits,
                             .keep_outputs = assignment.keep_outputs};
  if (parts_.tamper != nullptr && parts_.tamper->weights) parts_.tamper->weights(weights);
  ASSIGN_OR_RETURN(std::shared_ptr<StageExecutor> executor,
                   StageExecutor::Create(options, weights, parts_.compute));
  RETURN_IF_ERROR(executor->SelfTest());
  return executor;
}

absl::Status StageKeeper::AwaitDownstream(FrameSender& downstream) {
  const absl::Time deadline = parts_.clock.Now() + options_.downstream_timeout;
  Backoff backoff(absl::Milliseconds(50), absl::Milliseconds(500), SecureRandomU64());
  while (true) {
    const absl::Status answer = downstream.Echo(kEchoTimeout);
    const absl::Duration wait = backoff.Next();
    if (answer.ok() || parts_.clock.Now() + wait > deadline) return answer;
    absl::MutexLock lock(&mu_);
    if (mu_.AwaitWithTimeout(absl::Condition(&interrupted_), wait)) {
      return absl::CancelledError("another assignment came");
    }
  }
}

absl::Status StageKeeper::BringUp(const Assignment& assignment, StageFault& fault, bool& kept) {
  spdlog::info("epoch {}: assigned layers {} to {} of {}", assignment.epoch.v,
               assignment.layers.first, assignment.layers.last - 1,
               Printable(assignment.config.name));
  bytes_ = FetchBytes();
  for (const TensorSpec& tensor : assignment.tensors) bytes_.total += tensor.bytes();
  for (const auto* basis : {&assignment.upstream_basis, &assignment.downstream_basis}) {
    if (*basis) bytes_.total += (*basis)->bytes();
  }
  RETURN_IF_ERROR(Check(assignment));
  parts_.runner.DropPrepared();
  kept = parts_.runner.CanContinue(assignment);
  ASSIGN_OR_RETURN(std::vector<StageTensor> tensors, FetchTensors(assignment, !kept));
  ASSIGN_OR_RETURN(StageBases bases, TakeBases(assignment, tensors));
  std::shared_ptr<StageExecutor> executor;
  if (kept) {
    bytes_.held = bytes_.total;
  } else {
    ASSIGN_OR_RETURN(executor, MakeExecutor(assignment, std::move(tensors)));
  }
  auto downstream = HopSender::Open(
      parts_.transport, CompleteAddress(assignment.downstream_address), assignment.downstream);
  const absl::Status answer = AwaitDownstream(*downstream);
  if (!answer.ok()) {
    fault = StageFault::kDownstream;
    return answer;
  }
  std::unique_ptr<StageReceipts> receipts;
  if (parts_.receipts != nullptr && parts_.receipts->wanted()) {
    receipts = std::make_unique<StageReceipts>(assignment, *parts_.rows, *parts_.receipts);
  }
  return parts_.runner.Prepare(std::make_shared<HeldStage>(
      assignment, options_.self, std::move(executor), std::move(bases), std::move(downstream),
      parts_.clock, std::move(receipts), parts_.tamper));
}

absl::Status StageKeeper::SendKv(const HandOver& hand_over, uint64_t& bytes) {
  const absl::Time start = parts_.clock.Now();
  ASSIGN_OR_RETURN(const std::vector<KvExtent> extents, parts_.runner.Halt(hand_over.epoch));
  KvSender sender(parts_.transport, CompleteAddress(hand_over.address), hand_over.to,
                  hand_over.next_epoch);
  const auto send = [&]() -> absl::Status {
    for (const KvExtent& extent : extents) {
      for (uint32_t first = 0; first < extent.length;) {
        ASSIGN_OR_RETURN(
            const grpc::ByteBuffer frame,
            parts_.runner.Export(hand_over.epoch, hand_over.next_epoch, extent, first));
        if (const absl::Status sent = sender.Send(frame); !sent.ok()) {
          const absl::Status end = sender.Finish();
          return end.ok() ? sent : end;
        }
        bytes += frame.Length();
      }
    }
    return sender.Finish();
  };
  const absl::Cleanup no_cancel = [this] { SetCancel(nullptr); };
  const absl::Status sent = SetCancel([&sender] { sender.Cancel(); })
                                ? absl::CancelledError("another assignment came")
                                : send();
  const double seconds = absl::ToDoubleSeconds(parts_.clock.Now() - start);
  if (sent.ok()) {
    spdlog::info("epoch {}: the KV of {} sequences went to node {}: {} in {:.3f} s",
                 hand_over.epoch.v, extents.size(), NodeName(hand_over.to), FormatBytes(bytes),
                 seconds);
  }
  return sent;
}

std::string StageKeeper::CompleteAddress(const std::string& address) const {
  if (!absl::StartsWith(address, ":")) return address;
  return absl::StrCat(options_.coordinator.substr(0, options_.coordinator.rfind(':')), address);
}

void StageKeeper::Tell(Epoch epoch, StageState state, bool kept) {
  report_({.epoch = epoch,
           .state = state,
           .bytes_held = bytes_.held,
           .bytes_total = bytes_.total,
           .bytes_fetched = bytes_.fetched,
           .message = "",
           .kept = kept});
}

void StageKeeper::TellFailed(Epoch epoch, const absl::Status& why, StageFault fault) {
  spdlog::error("stage of epoch {} failed: {}", epoch.v, std::string(why.message()));
  report_({.epoch = epoch,
           .state = StageState::kFailed,
           .bytes_held = bytes_.held,
           .bytes_total = bytes_.total,
           .bytes_fetched = bytes_.fetched,
           .message = Printable(why.message(), kMostMessageBytes),
           .fault = fault});
}

}  // namespace efedllm
