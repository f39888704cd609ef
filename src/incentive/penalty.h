// What a proven lie must cost so that lying is a loss, and how soon one is found.
#ifndef EFEDLLM_INCENTIVE_PENALTY_H_
#define EFEDLLM_INCENTIVE_PENALTY_H_

#include <cstdint>

#include "incentive/incentive_rules.h"

namespace efedllm {

// Penalty of a chunk that was proven wrong, in millionths of its pay, which is voided besides.
// audit_ppm: the rate p that was in force; detection_ppm: the chance d that an audit of a bad chunk
// finds it. Let the gain be at most the pay. Cheating is a loss if p d (penalty) >= (1 - p d) gain,
// so the penalty is (1 - p d) / (p d), times the margin, rounded up, and at least the least. Both
// rates within (0, 1]; what is less than a millionth counts as one.
uint64_t PenaltyMultiplePpm(const IncentiveRules& rules, uint64_t audit_ppm,
                            uint64_t detection_ppm);

// Micro-credits, rounded up; saturates. pay >= 0.
int64_t PenaltyMicros(const IncentiveRules& rules, int64_t pay_micros, uint64_t audit_ppm,
                      uint64_t detection_ppm);

// The penalty as far as there is something to take it from. Escrow is taken first.
struct PenaltySources {
  int64_t from_escrow = 0;
  int64_t from_balance = 0;
  int64_t uncollected = 0;
};
PenaltySources CollectPenalty(int64_t penalty_micros, int64_t escrow_micros,
                              int64_t balance_micros);

// Bad chunks that are delivered until one is found with probability confidence, each audited with
// probability audit and found with probability detection: the least n with 1 - (1 - p d)^n >=
// confidence. All within (0, 1); p d = 1 gives 1.
uint64_t BadChunksUntilFound(double audit, double detection, double confidence);
// Of a node of whose chunks one in `every` is bad: all of its chunks until then.
uint64_t ChunksUntilFound(double audit, double detection, double confidence, uint64_t every);

}  // namespace efedllm

#endif  // EFEDLLM_INCENTIVE_PENALTY_H_
