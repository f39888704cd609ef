// Where a running coordinator's audits get weights, bases and verifiers from.
#ifndef EFEDLLM_COORDINATOR_AUDIT_SOURCES_H_
#define EFEDLLM_COORDINATOR_AUDIT_SOURCES_H_

#include <functional>
#include <string>
#include <vector>

#include "common/ids.h"
#include "coordinator/audit_inputs.h"
#include "coordinator/audit_panel.h"
#include "coordinator/edge_codecs.h"
#include "coordinator/epoch_keeper.h"
#include "incentive/trust.h"
#include "model/model_config.h"
#include "model/model_file.h"
#include "model/stage_replay.h"
#include "model/tensor_hasher.h"
#include "model/weight_cache.h"

namespace efedllm {

// What the edges of the stage's epoch were coded with. All borrowed by the result.
BasesOfStage BasesOfCodecs(const EdgeCodecs& codecs);

// Layers of the model file, or what is packed of them already: pages that the coordinator has in
// memory for computing alone are shared. All borrowed by the result; cache and hasher may be null.
StageReplay::LayerSource LayersOfModel(const ModelConfig& config, const ModelFile& file,
                                       WeightCache* cache, TensorHasher* hasher);

// Nodes that hold all layers of the stage now, or wait without a stage and may have fetched them
// ahead (one that has not says so at once). Not the stage's own node, nor one at the same host
// unless that is this machine: with loopback addresses all are.
std::vector<AuditVerifier> VerifiersOf(const ReceiptStage& stage, const ClusterStatus& cluster,
                                       const std::function<std::string(NodeId node)>& owner,
                                       const std::function<TrustState(NodeId node)>& trust);

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_AUDIT_SOURCES_H_
