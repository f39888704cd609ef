// A simulation's result for people and for programs.
#ifndef EFEDLLM_SIMULATOR_SIM_REPORT_H_
#define EFEDLLM_SIMULATOR_SIM_REPORT_H_

#include <nlohmann/json.hpp>
#include <string>

#include "simulator/sim_spec.h"
#include "simulator/simulation.h"

namespace efedllm {

nlohmann::json SimResultJson(const SimSpec& spec, const SimResult& result);
// A few lines and tables; of many stages or links the busiest.
std::string SimResultText(const SimSpec& spec, const SimResult& result);
// A picture: generated tokens per second over the time, and how busy each stage is. SVG.
std::string SimResultSvg(const SimSpec& spec, const SimResult& result);

}  // namespace efedllm

#endif  // EFEDLLM_SIMULATOR_SIM_REPORT_H_
