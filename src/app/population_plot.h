// Pictures of what the incentive's rules did to a population.
#ifndef EFEDLLM_APP_POPULATION_PLOT_H_
#define EFEDLLM_APP_POPULATION_PLOT_H_

#include <string>
#include <vector>

#include "incentive/population.h"

namespace efedllm {

struct PopulationPlot {
  std::string file;  // its name
  std::string svg;
};

// rewards.svg: what a machine of each group earned over time. detection.svg: after how many bad
// chunks the keys of each were found, and what the lowest audit rate promises. eviction.svg: how
// many of each group's machines may work.
std::vector<PopulationPlot> PopulationPlots(const PopulationResult& result);

}  // namespace efedllm

#endif  // EFEDLLM_APP_POPULATION_PLOT_H_
