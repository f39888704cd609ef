// The generated services and stubs between worker and coordinator, for those who serve and call
// them. What their messages say becomes true in cluster_wire.h.
#ifndef EFEDLLM_WIRE_CLUSTER_SERVICE_H_
#define EFEDLLM_WIRE_CLUSTER_SERVICE_H_

#include "efedllm/cluster.grpc.pb.h"

#endif  // EFEDLLM_WIRE_CLUSTER_SERVICE_H_
