#include "coordinator/local_pipeline.h"

#include <sys/resource.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "spdlog/spdlog.h"

namespace efedllm {
namespace {

const size_t kMaxInFlight = MaxStepsInFlight({1, 0});

}  // namespace

absl::StatusOr<std::unique_ptr<LocalPipeline>> LocalPipeline::Create(
    const ModelConfig& config, const ModelFile& file, const LocalPipelineOptions& options,
    Compute& compute) {
  StageOptions stage;
  stage.config = config;
  stage.layers = {0, config.layers};
  stage.kv_tokens = options.kv_tokens;
  stage.kv_type = options.kv_type;
  stage.limits = options.limits;
  if (stage.limits.max_position == 0) stage.limits.max_position = config.context;
  ASSIGN_OR_RETURN(const std::vector<StageTensor> tensors,
                   LoadStageTensors(config, file, stage.layers,
                                    {options.cache, options.hasher, compute.team.get()}));
  ASSIGN_OR_RETURN(std::unique_ptr<StageExecutor> executor,
                   StageExecutor::Create(stage, tensors, compute));
  RETURN_IF_ERROR(executor->SelfTest());

  PipelineCapacity capacity;
  capacity.epoch = options.epoch;
  capacity.chains = {{1, executor->kv_tokens_total()}};
  capacity.limits = stage.limits;
  std::unique_ptr<LocalPipeline> pipeline(new LocalPipeline(capacity, std::move(executor)));
  if (options.cache != nullptr) {
    pipeline->keeper_ = std::thread([pipeline = pipeline.get(), tensors, options] {
      pipeline->Keep(tensors, *options.cache, *options.hasher);
    });
  }
  return pipeline;
}

LocalPipeline::LocalPipeline(PipelineCapacity capacity, std::unique_ptr<StageExecutor> executor)
    : capacity_(capacity),
      executor_(std::move(executor)),
      work_(kMaxInFlight),
      results_(2 * kMaxInFlight),
      thread_([this] { Run(); }) {}

LocalPipeline::~LocalPipeline() {
  stop_keeping_ = true;
  if (keeper_.joinable()) keeper_.join();
  work_.Close();
  results_.Close();
  thread_.join();
}

absl::StatusOr<PipelineCapacity> LocalPipeline::Capacity() const { return capacity_; }

absl::Status LocalPipeline::Submit(Step step, size_t chain, Matrix hidden) {
  if (step.epoch != capacity_.epoch) {
    return absl::AbortedError(
        absl::StrCat("epoch ", step.epoch.v, " is not the present one, ", capacity_.epoch.v));
  }
  CHECK(chain == 0 && hidden.rows() == step.tokens());
  if (!work_.TryPush({std::move(step), std::move(hidden), absl::Now()})) {
    return absl::ResourceExhaustedError(
        absl::StrCat("more than ", kMaxInFlight, " steps in flight"));
  }
  return absl::OkStatus();
}

std::optional<StepResult> LocalPipeline::NextResult(absl::Duration timeout) {
  return results_.Pop(timeout);
}

void LocalPipeline::Keep(const std::vector<StageTensor>& tensors, WeightCache& cache,
                         TensorHasher& hasher) {
  setpriority(PRIO_PROCESS, 0, 19);  // of this thread alone: requests come first
  const absl::Status status =
      KeepTensors(tensors, cache, hasher, [this] { return stop_keeping_.load(); });
  if (status.ok()) return;
  spdlog::warn("the packed weights are not kept for the next start, which packs them again: {}",
               std::string(status.message()));
}

void LocalPipeline::Run() {
  while (true) {
    std::optional<Work> work = work_.Pop(absl::InfiniteDuration());
    if (!work.has_value()) return;
    StepResult result;
    result.epoch = work->step.epoch;
    result.id = work->step.id;
    const absl::Time begun = absl::Now();
    result.status = executor_->Run(work->step, work->hidden.ref());
    StageTiming timing;  // of node 0, the coordinator itself
    timing.received_micros = absl::ToUnixMicros(work->submitted);
    timing.queue_micros = TimingMicros(begun - work->submitted);
    result.returned = absl::Now();
    timing.compute_micros = TimingMicros(result.returned - begun);
    result.timings.push_back(timing);
    if (result.status.ok()) result.hidden = std::move(work->hidden);
    // Waits only if nobody takes results; refused only when closed.
    if (!results_.Push(std::move(result), absl::InfiniteDuration())) return;
  }
}

}  // namespace efedllm
