#include "worker/stage_keeper.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "model/weights.h"
#include "wire/step_wire.h"

namespace efedllm {

StageKeeper::StageKeeper(const StageKeeperOptions& options, v1::Cluster::StubInterface& stub,
                         const Transport& transport, WeightCache& cache, Compute& compute,
                         StageRunner& runner, ReportCallback report)
    : options_(options),
      stub_(stub),
      transport_(transport),
      cache_(cache),
      compute_(compute),
      runner_(runner),
      report_(std::move(report)) {
  thread_ = std::thread([this] { Loop(); });
}

StageKeeper::~StageKeeper() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
    if (fetcher_ != nullptr) fetcher_->Cancel();
  }
  thread_.join();
}

void StageKeeper::Assign(Assignment assignment) { Submit({std::move(assignment)}); }
void StageKeeper::Release() { Submit({std::nullopt}); }

void StageKeeper::Submit(Job job) {
  absl::MutexLock lock(&mu_);
  job_ = std::move(job);
  if (fetcher_ != nullptr) fetcher_->Cancel();
}

void StageKeeper::Loop() {
  while (true) {
    Job job;
    {
      absl::MutexLock lock(&mu_);
      mu_.Await(absl::Condition(this, &StageKeeper::HasWork));
      if (stopping_) break;
      job = *std::move(job_);
      job_.reset();
    }
    runner_.Drop();
    if (!job.assignment) continue;
    const absl::Status up = BringUp(*job.assignment);
    if (up.ok() || absl::IsCancelled(up)) continue;
    spdlog::error("stage of epoch {} failed: {}", job.assignment->epoch.v,
                  std::string(up.message()));
    Tell(*job.assignment, StageState::kFailed, std::string(up.message()));
  }
  runner_.Drop();
}

absl::Status StageKeeper::Check(const Assignment& assignment) const {
  RETURN_IF_ERROR(ValidateStageTensors(assignment.config, assignment.layers, assignment.tensors));
  uint64_t weights = 0;
  for (const TensorSpec& tensor : assignment.tensors) weights += PackedBytes(tensor);
  const uint64_t kv_per_token =
      KvBytesPerToken(assignment.config, assignment.kv_type) * assignment.layers.size();
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

absl::StatusOr<std::vector<StageTensor>> StageKeeper::FetchTensors(const Assignment& assignment) {
  uint64_t total = 0;
  for (const TensorSpec& tensor : assignment.tensors) total += tensor.bytes();
  bytes_ = {.held = 0, .total = total, .fetched = 0};
  Tell(assignment, StageState::kFetching, "");
  FetchProgress progress(total, options_.draw_bar, [&](const FetchBytes& bytes) {
    report_({.epoch = assignment.epoch,
             .state = StageState::kFetching,
             .bytes_held = bytes.held,
             .bytes_total = bytes.total,
             .bytes_fetched = bytes.fetched,
             .message = ""});
  });
  WeightFetcher fetcher(stub_, transport_, cache_, progress);
  {
    absl::MutexLock lock(&mu_);
    if (job_.has_value() || stopping_) return absl::CancelledError("another assignment came");
    fetcher_ = &fetcher;
  }
  auto tensors = fetcher.Fetch(assignment.tensors);
  {
    absl::MutexLock lock(&mu_);
    fetcher_ = nullptr;
  }
  progress.Finish();
  bytes_ = progress.bytes();
  if (tensors.ok()) {
    spdlog::info("weights of layers {} to {} are here: {} in {} tensors, {} fetched in {:.1f} s",
                 assignment.layers.first, assignment.layers.last - 1, FormatBytes(total),
                 assignment.tensors.size(), FormatBytes(bytes_.fetched),
                 absl::ToDoubleSeconds(progress.elapsed()));
  }
  return tensors;
}

std::string StageKeeper::DownstreamAddress(const Assignment& assignment) const {
  const std::string& address = assignment.downstream_address;
  if (!absl::StartsWith(address, ":")) return address;
  return absl::StrCat(options_.coordinator.substr(0, options_.coordinator.rfind(':')), address);
}

absl::Status StageKeeper::BringUp(const Assignment& assignment) {
  spdlog::info("epoch {}: assigned layers {} to {} of {}", assignment.epoch.v,
               assignment.layers.first, assignment.layers.last - 1,
               Printable(assignment.config.name));
  bytes_ = FetchBytes();
  RETURN_IF_ERROR(Check(assignment));
  ASSIGN_OR_RETURN(const std::vector<StageTensor> tensors, FetchTensors(assignment));
  const StageOptions options{.config = assignment.config,
                             .layers = assignment.layers,
                             .kv_tokens = assignment.kv_tokens,
                             .kv_type = assignment.kv_type,
                             .limits = assignment.limits};
  RunningStage stage;
  ASSIGN_OR_RETURN(stage.executor, StageExecutor::Create(options, tensors, compute_));
  RETURN_IF_ERROR(stage.executor->SelfTest());
  stage.epoch = assignment.epoch;
  stage.upstream = assignment.upstream;
  stage.limits = assignment.limits;
  stage.d_model = assignment.config.d_model;
  stage.codec = assignment.codec;
  stage.downstream =
      HopSender::Open(transport_, DownstreamAddress(assignment), assignment.downstream);
  runner_.Install(std::move(stage));
  spdlog::info("epoch {}: ready", assignment.epoch.v);
  Tell(assignment, StageState::kReady, "");
  return absl::OkStatus();
}

void StageKeeper::Tell(const Assignment& assignment, StageState state, const std::string& message) {
  report_({.epoch = assignment.epoch,
           .state = state,
           .bytes_held = bytes_.held,
           .bytes_total = bytes_.total,
           .bytes_fetched = bytes_.fetched,
           .message = Printable(message, 500)});
}

}  // namespace efedllm
