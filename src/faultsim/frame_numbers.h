// What stands at the begin of a hop's frame, for faults and planted bugs.
#ifndef EFEDLLM_FAULTSIM_FRAME_NUMBERS_H_
#define EFEDLLM_FAULTSIM_FRAME_NUMBERS_H_

#include <optional>
#include <string>

#include "common/ids.h"

namespace efedllm::faultsim {

struct FrameNumbers {
  Epoch epoch;
  StepId step;
};
// nullopt: it is no frame.
std::optional<FrameNumbers> NumbersOf(const std::string& frame);

// The frame with another epoch, and with the right checksum; it is one.
std::string WithEpoch(const std::string& frame, Epoch epoch);
// The frame, whatever its checksum says.
std::string WithRightChecksum(std::string frame);

}  // namespace efedllm::faultsim

#endif  // EFEDLLM_FAULTSIM_FRAME_NUMBERS_H_
