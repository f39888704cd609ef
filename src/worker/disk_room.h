// How much of a disk stays free of what can be done without.
#ifndef EFEDLLM_WORKER_DISK_ROOM_H_
#define EFEDLLM_WORKER_DISK_ROOM_H_

#include <cstdint>

#include "model/weight_cache.h"

namespace efedllm {

// Whether a tenth of the disk, and a gigabyte, would be left: for what others lend us, and for
// weights that are needed at once.
bool LeavesRoom(const DiskSpace& space, uint64_t bytes);

}  // namespace efedllm

#endif  // EFEDLLM_WORKER_DISK_ROOM_H_
