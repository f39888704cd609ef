// The generated service and stub between efedllm-ctl and the coordinator.
#ifndef EFEDLLM_WIRE_ADMIN_SERVICE_H_
#define EFEDLLM_WIRE_ADMIN_SERVICE_H_

#include "efedllm/admin.grpc.pb.h"

#endif  // EFEDLLM_WIRE_ADMIN_SERVICE_H_
