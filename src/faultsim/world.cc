#include "faultsim/world.h"

#include "absl/strings/str_format.h"

namespace efedllm::faultsim {

std::string World::Line(const std::string& who, const std::string& what) const {
  return absl::StrFormat("%10.4f s  %-12s %s", absl::ToDoubleSeconds(loop.now()), who, what);
}

}  // namespace efedllm::faultsim
