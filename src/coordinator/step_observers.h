// Who is told of every step that came back.
#ifndef EFEDLLM_COORDINATOR_STEP_OBSERVERS_H_
#define EFEDLLM_COORDINATOR_STEP_OBSERVERS_H_

#include "absl/time/time.h"
#include "coordinator/batcher.h"
#include "coordinator/pipeline.h"
#include "coordinator/stage_meters.h"
#include "coordinator/trace_store.h"
#include "coordinator/usage_meter.h"

namespace efedllm {

// Borrowed; null: nobody.
struct StepObservers {
  TraceStore* traces = nullptr;
  StageMeters* meters = nullptr;
  UsageMeter* usage = nullptr;

  // result: of that step, OK; its hidden is not looked at. head_begun, head_done: when its rows
  // became tokens.
  void OnStep(const Batcher::StepInFlight& step, const StepResult& result, absl::Time head_begun,
              absl::Time head_done) const;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_STEP_OBSERVERS_H_
