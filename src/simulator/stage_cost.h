// What a step costs on a node: weights read once per step, products, attention over the KV.
#ifndef EFEDLLM_SIMULATOR_STAGE_COST_H_
#define EFEDLLM_SIMULATOR_STAGE_COST_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cluster/planner.h"
#include "simulator/sim_spec.h"

namespace efedllm {

// The rows of a step, as far as they cost something.
struct StepWork {
  uint32_t rows = 0;
  uint32_t spans = 0;
  uint32_t head_rows = 0;  // whose logits are wanted
  uint64_t kv_read = 0;    // positions whose keys and values are read, once per block of 32 rows
  uint64_t attended = 0;   // pairs of a row and a position that it sees

  // tokens consecutive tokens of one sequence, the first at first_position.
  void AddSpan(uint32_t first_position, uint32_t tokens);
};

// What the planner is told of each layer.
std::vector<LayerCost> SimLayerCosts(const SimModel& model);

// The output head.
LayerCost SimHeadCost(const SimModel& model);

// Seconds that steps take on one node.
class StageCost {
 public:
  // `layers` layers of the model on that node.
  static StageCost OfLayers(const SimModel& model, const SimNode& node, uint32_t layers);
  // The output head and the choice of a token, on the coordinator. Its measured times, if it has
  // any, are those of the head.
  static StageCost OfHead(const SimModel& model, const SimNode& coordinator);

  double LayerSeconds(const StepWork& work) const;
  double HeadSeconds(uint32_t rows) const;

 private:
  StageCost(const SimModel& model, const SimNode& node) : model_(model), node_(node) {}

  // One pass over weights by so many rows.
  double MatrixSeconds(uint32_t rows) const;
  double MeasuredSeconds(uint32_t rows) const;

  SimModel model_;
  SimNode node_;
  double layers_ = 0;
  double dense_bytes_ = 0;   // weights that every row uses
  double expert_bytes_ = 0;  // of one expert in all layers
  double ops_per_row_ = 0;
  double rate_ = 1;  // of these operations
};

}  // namespace efedllm

#endif  // EFEDLLM_SIMULATOR_STAGE_COST_H_
