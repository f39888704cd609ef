// What a test makes a worker do wrong. The shipped worker has nothing of it: tests/adversary does.
#ifndef EFEDLLM_WORKER_STAGE_TAMPER_H_
#define EFEDLLM_WORKER_STAGE_TAMPER_H_

#include <functional>
#include <vector>

#include "cluster/receipt.h"
#include "cluster/stage_plan.h"
#include "cluster/step.h"
#include "model/tensor_loader.h"
#include "tensor/matrix.h"

namespace efedllm {

struct StageTamper {
  // Of each stage that is made: the tensors of StageTensors() in their order. May be null.
  std::function<void(std::vector<StageTensor>& tensors)> weights;
  // Of each step that a stage computes, before its outputs are coded, kept and claimed: [tokens,
  // d_model] both. Called by one thread at a time per stage. May be null.
  std::function<void(const Step& step, ConstMatrixRef inputs, MatrixRef outputs)> outputs;
  // Of each answer about another node's layers (layers: those that were computed), from position 0
  // on: [positions, d_model] both. Called by one thread. May be null.
  std::function<void(LayerRange layers, ConstMatrixRef inputs, MatrixRef outputs)> replayed;
  // Of each receipt, before it is signed. Called by one thread at a time. May be null.
  std::function<void(Receipt& receipt)> receipt;
};

}  // namespace efedllm

#endif  // EFEDLLM_WORKER_STAGE_TAMPER_H_
