#include "worker/disk_room.h"

#include <algorithm>

namespace efedllm {

bool LeavesRoom(const DiskSpace& space, uint64_t bytes) {
  constexpr uint64_t kLeastFreeBytes = uint64_t{1} << 30;
  const uint64_t stays = std::max(kLeastFreeBytes, space.total / 10);
  return space.free >= stays && space.free - stays >= bytes;
}

}  // namespace efedllm
