// The present plan in words and figures, for efedllm-ctl.
#ifndef EFEDLLM_COORDINATOR_PLAN_EXPLANATION_H_
#define EFEDLLM_COORDINATOR_PLAN_EXPLANATION_H_

#include "coordinator/epoch_keeper.h"
#include "efedllm/admin.pb.h"

namespace efedllm {

// Everything but the model's name.
void FillExplanation(const PlanExplanation& explanation, v1::ExplainPlanReply& reply);

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_PLAN_EXPLANATION_H_
